// Threads that run one function together and meet at barriers. They spin for a while between calls, then sleep.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
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
        for (int i = 1; i < count; i++) workers_.emplace_back([this, i] { wait_for_work(i); });
    }

    ~Threads() {
        stop_ = true;
        start();
        for (auto &worker : workers_) worker.join();
    }

    int count() const { return count_; }

    // work(i) on each thread i; returns when all are done
    void run(const std::function<void(int)> &work) {
        work_ = &work;
        start();
        work(0);
        barrier();
    }

    // Called by every thread within `run`: none goes on before all have come
    void barrier() {
        if (count_ == 1) return;
        uint32_t phase = phase_.load(std::memory_order_relaxed);
        if (arrived_.fetch_add(1, std::memory_order_acq_rel) == count_ - 1) {
            arrived_.store(0, std::memory_order_relaxed);
            phase_.store(phase + 1, std::memory_order_release);
            return;
        }
        for (int turn = 0; phase_.load(std::memory_order_acquire) == phase; turn++) pause(turn);
    }

private:
    static constexpr int SPINS = 4096, TURNS = 20000;  // then give the core to whoever wants it; then sleep

    static void pause(int turn) {
        if (turn < SPINS)
            RELAX();
        else
            std::this_thread::yield();
    }

    void start() {
        {
            std::lock_guard<std::mutex> lock(mutex_);
            epoch_.fetch_add(1, std::memory_order_release);
        }
        wake_.notify_all();
    }

    void wait_for_work(int index) {
        for (uint32_t seen = 0;; seen++) {
            for (int turn = 0; epoch_.load(std::memory_order_acquire) == seen && turn < TURNS; turn++) pause(turn);
            if (epoch_.load(std::memory_order_acquire) == seen) {
                std::unique_lock<std::mutex> lock(mutex_);
                wake_.wait(lock, [&] { return epoch_.load(std::memory_order_acquire) != seen; });
            }
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
    std::mutex mutex_;
    std::condition_variable wake_;
};
