"""Net: 9,324 parameters. Written by `neural compile`."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def init_weights(module: nn.Module) -> None:
    """Keras': matrices uniform after Glorot and Bengio 2010, tables uniform, biases 0."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.uniform_(module.weight, -0.05, 0.05)


class Body(nn.Module):
    def __init__(self, in_features: int, units: int, w: int) -> None:
        super().__init__()
        self.a = nn.Linear(in_features, units)
        self.b = nn.Linear(in_features, units)
        self.dense = nn.Linear(2 * units, w)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_features) → (B, w)."""
        a = F.relu(self.a(x))
        b = self.b(x)
        x = torch.cat((a, b), dim=-1)
        return self.dense(x)


class ResidualBlock(nn.Module):
    def __init__(self, in_features: int) -> None:
        super().__init__()
        self.layer_norm = nn.LayerNorm(in_features, eps=0.001)
        self.dense = nn.Linear(in_features, 8)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_features) → (B, in_features)."""
        return x + self.dense(self.layer_norm(x))


class Net(nn.Module):
    def __init__(self, w: int = 32, n: int = 3) -> None:
        super().__init__()
        self.dense_1 = nn.Linear(20, w)
        self.hidden = nn.ModuleList(nn.Linear(w, w) for _ in range(n))
        self.bodies = nn.ModuleList(
            Body(in_features=w, units=16, w=w) for _ in range(2)
        )
        self.dense_2 = nn.Linear(w, 16)
        self.dense_3 = nn.Linear(16, 8)
        self.dense_4 = nn.Linear(w, 8)
        self.residual_blocks = nn.ModuleList(
            ResidualBlock(in_features=8) for _ in range(3)
        )
        self.layer_norms = nn.ModuleList(nn.LayerNorm(8, eps=0.5) for _ in range(2))
        self.output = nn.Linear(8, 4)
        self.apply(init_weights)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, 4) of x (B, 20)."""
        x = self.dense_1(x)
        for layer in self.hidden:
            x = F.relu(layer(x))
        for block in self.bodies:
            x = block(x)
        h = self.dense_2(x)
        h = self.dense_3(h)
        x = self.dense_4(x)
        x = x + h
        for block in self.residual_blocks:
            x = block(x)
        for layer in self.layer_norms:
            x = layer(x)
        for _ in range(2):
            x = torch.tanh(x)
        return self.output(x)

    def probabilities(self, x: Tensor) -> Tensor:
        """The softmax of the logits, (B, 4)."""
        return self(x).softmax(dim=-1)


if __name__ == "__main__":
    model = Net().eval()
    size = sum(p.numel() for p in model.parameters())
    x = torch.randn(2, 20)
    with torch.no_grad():
        output = model(x)
    print(f"Net: {size:,} parameters")
    print(f"x {tuple(x.shape)} → {tuple(output.shape)}")
