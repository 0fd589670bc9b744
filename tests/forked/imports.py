"""What the server imports: what `neural` and torch import once a training, a text or a checkpoint is under way.

No other framework: some start threads as they are imported, and some commands must load none.
"""

from __future__ import annotations

import gc
import io

import torch._dynamo
import torch._inductor
import torch.distributed.checkpoint
import torch.distributed.fsdp
import torch.distributed.tensor.parallel
import torch.onnx  # noqa: F401

import neural.cli.app
import neural.generation.engine
import neural.generation.jobs
import neural.training.distributed.tensor_parallel
import neural.training.loop
import neural.training.setup  # noqa: F401
from neural.training.metrics import _summary_writer
from neural.training.plots import _axes

_summary_writer()
_axes("", "")[0].savefig(io.BytesIO())  # which looks for fonts
gc.freeze()  # what is there stays there: no child looks through it for garbage
