// Threads that run one function together and meet at barriers. Who waits spins for a while, then sleeps.
#pragma once

#include <atomic>
#include <functional>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#define RELAX() _mm_pause()
#else
#define RELAX() std::this_thread::yield()
#endif

class Threads {
public:
    explicit Threads(int count) : count_(count) {
        for (int i = 1; i < count; i++) workers_.emplace_back([this, i] { work_on(i); });
    }

    ~Threads() {
        stop_ = true;
        advance(epoch_);
        for (auto &worker : workers_) worker.join();
    }

    int count() const { return count_; }

    // work(i) on each thread i; returns when all are done
    void run(const std::function<void(int)> &work) {
        work_ = &work;
        advance(epoch_);
        work(0);
        barrier();
    }

    // Called by every thread within `run`: none goes on before all have come
    void barrier() {
        if (count_ == 1) return;
        uint32_t phase = phase_.load(std::memory_order_relaxed);
        if (arrived_.fetch_add(1, std::memory_order_acq_rel) == count_ - 1) {
            arrived_.store(0, std::memory_order_relaxed);
            advance(phase_);
        } else {
            wait(phase_, phase, SPINS);
        }
    }

private:
    static constexpr int SPINS = 1 << 13, IDLE_SPINS = 1 << 16;  // about 0.1 and 1 ms

    static void advance(std::atomic<uint32_t> &number) {
        number.fetch_add(1, std::memory_order_release);
        number.notify_all();
    }

    static void wait(std::atomic<uint32_t> &number, uint32_t old, int spins) {
        while (number.load(std::memory_order_acquire) == old)
            if (spins-- > 0)
                RELAX();
            else
                number.wait(old, std::memory_order_acquire);
    }

    void work_on(int index) {
        for (uint32_t seen = 0;; seen++) {
            wait(epoch_, seen, IDLE_SPINS);
            if (stop_) return;
            (*work_)(index);
            barrier();
        }
    }

    int count_;
    std::vector<std::thread> workers_;
    const std::function<void(int)> *work_ = nullptr;
    std::atomic<uint32_t> epoch_{0}, phase_{0};
    std::atomic<int> arrived_{0};
    std::atomic<bool> stop_{false};
};
