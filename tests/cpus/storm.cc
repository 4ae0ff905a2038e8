#include "storm.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <chrono>

#include "cpus/affinity.h"

namespace allot::cpus {
namespace {

std::atomic<int> running{0};
int hop_us_ = 0;

// The successor inherits this thread's mask at the moment of clone: exactly what a pass races with.
void* link_of_chain(void*);

bool start_thread(void* (*body)(void*)) {
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, 64 * 1024);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  pthread_t thread;
  int error = pthread_create(&thread, &attributes, body, nullptr);
  pthread_attr_destroy(&attributes);
  return error == 0;
}

void* link_of_chain(void*) {
  timespec nap{0, hop_us_ * 1000L};
  nanosleep(&nap, nullptr);
  while (!start_thread(link_of_chain)) nanosleep(&nap, nullptr);
  return nullptr;
}

void* sleeper(void*) {
  running.fetch_add(1);
  while (true) pause();
  return nullptr;
}

[[noreturn]] void storm(int idle, int chains, int ready) {
  for (int i = 0; i < idle; ++i) {
    if (!start_thread(sleeper)) _exit(1);
  }
  timespec nap{0, 100'000};
  while (running.load() < idle) nanosleep(&nap, nullptr);
  for (int i = 0; i < chains; ++i) {
    if (!start_thread(link_of_chain)) _exit(1);
  }
  if (write(ready, "x", 1) != 1) _exit(1);
  while (true) pause();
}

}  // namespace

Storm Storm::start(int idle, int chains, int hop_us) {
  int ready[2];
  if (pipe(ready) != 0) return {};
  hop_us_ = hop_us;
  pid_t pid = fork();
  if (pid == 0) {
    close(ready[0]);
    storm(idle, chains, ready[1]);
  }
  close(ready[1]);
  char byte = 0;
  bool up = read(ready[0], &byte, 1) == 1;
  close(ready[0]);
  Storm s{pid};
  if (!up) {
    s.end();
    s.pid = 0;
  }
  return s;
}

void Storm::end() {
  kill(pid, SIGKILL);
  waitpid(pid, nullptr, 0);
}

bool Storm::freeze() {
  if (kill(pid, SIGSTOP) != 0) return false;
  auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (std::chrono::steady_clock::now() < end) {
    bool all = true;
    for (pid_t tid : threads_of(FsRoot{}, pid)) {
      std::optional<ThreadStat> stat = thread_stat(FsRoot{}, pid, tid);
      all = all && stat && (stat->state == 'T' || stat->state == 'Z' || stat->state == 'X');
    }
    if (all) return true;
    poll(nullptr, 0, 1);
  }
  return false;
}

}  // namespace allot::cpus
