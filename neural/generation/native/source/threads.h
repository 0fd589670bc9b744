// Threads that share tasks. A list of steps is done in order, each as a number of tasks: a thread takes those of its own
// part one after another, since memory that is read in order comes fastest, and then what is left of the others' parts.
// A step is over when its tasks are done, not when all threads have come: one that the system has put aside holds nobody
// up, and passes by what was done without it.
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
    // tasks(step): how many a step has, asked at the beginning of a round. work(step, task, thread): does one.
    Threads(int count, std::function<int64_t(size_t)> tasks, std::function<void(size_t, int64_t, int)> work)
        : tasks_(std::move(tasks)), work_(std::move(work)) {
        for (int i = 1; i < count; i++) workers_.emplace_back([this, i] { wait_for_rounds(i); });
    }

    ~Threads() {
        stop_ = true;
        begin_round();
        for (auto &worker : workers_) worker.join();
    }

    int count() const { return int(workers_.size()) + 1; }

    // Where a thread's part of so many tasks begins, and that of the one before it ends
    int64_t part(int64_t tasks, int thread) const { return tasks * thread / count(); }

    // All steps; returns when they are done
    void run(size_t steps) {
        if (steps_.size() < steps) {
            steps_ = std::vector<Step>(steps);
            for (auto &step : steps_) step.parts = std::vector<Part>(count());
        }
        uint32_t round = round_.load(std::memory_order_relaxed) + 1;
        for (auto &step : steps_) {
            step.done.store(0, std::memory_order_relaxed);
            for (auto &part : step.parts) part.next.store(uint64_t(round) << 32, std::memory_order_relaxed);
            // last: who still stands in the round before and sees it, sees that the step is of another round
            step.total.store(tasks_(&step - steps_.data()), std::memory_order_release);
        }
        begin_round();
        take_part(round, 0);
    }

private:
    static constexpr int SPINS = 1 << 13, IDLE_SPINS = 1 << 16;  // about 0.1 and 1 ms

    // A thread's part of the tasks: the round, and how many are taken of it
    struct alignas(64) Part {
        std::atomic<uint64_t> next{0};
    };

    struct Step {
        std::vector<Part> parts;
        std::atomic<int64_t> total{0}, done{0};
    };

    void begin_round() {
        round_.fetch_add(1, std::memory_order_release);
        round_.notify_all();
    }

    // A task of a step, -1 if there is none left, or the round is over. Who has a task keeps the round from ending, and so
    // may read what the round is about; nobody else may.
    int64_t take(Step &step, uint32_t round, int thread) const {
        for (int i = 0; i < count(); i++) {
            int owner = (thread + i) % count();
            std::atomic<uint64_t> &next = step.parts[owner].next;
            uint64_t seen = next.load(std::memory_order_acquire);
            while (seen >> 32 == round) {
                int64_t total = step.total.load(std::memory_order_acquire);
                int64_t task = part(total, owner) + int64_t(seen & UINT32_MAX);
                if (task >= part(total, owner + 1)) break;
                if (next.compare_exchange_weak(seen, seen + 1, std::memory_order_acq_rel)) return task;
            }
        }
        return -1;
    }

    void take_part(uint32_t round, int thread) {
        for (size_t i = 0; i < steps_.size(); i++) {
            Step &step = steps_[i];
            int64_t did = 0;
            for (int64_t task; (task = take(step, round, thread)) >= 0; did++) work_(i, task, thread);
            if (did) step.done.fetch_add(did, std::memory_order_release);
            for (int turn = 0; step.done.load(std::memory_order_acquire) < step.total.load(); turn++) {
                if (round_.load(std::memory_order_relaxed) != round) return;
                if (turn < SPINS)
                    RELAX();
                else
                    std::this_thread::yield();
            }
        }
    }

    void wait_for_rounds(int thread) {
        for (uint32_t seen = 0;;) {
            for (int turn = 0; round_.load(std::memory_order_acquire) == seen && turn < IDLE_SPINS; turn++) RELAX();
            round_.wait(seen, std::memory_order_acquire);
            seen = round_.load(std::memory_order_acquire);
            if (stop_) return;
            take_part(seen, thread);
        }
    }

    std::function<int64_t(size_t)> tasks_;
    std::function<void(size_t, int64_t, int)> work_;
    std::vector<Step> steps_;
    std::atomic<uint32_t> round_{0};
    std::atomic<bool> stop_{false};
    std::vector<std::thread> workers_;  // the last, so that they find all else
};
