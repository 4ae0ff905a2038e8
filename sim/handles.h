// Objects behind the driver's handles. They are made here and never unmapped: a destroyed one waits
// for reuse with its magic word gone, so that a stale handle is recognised instead of followed.
#pragma once

#include <mutex>
#include <new>
#include <utility>
#include <vector>

namespace allot::sim {

template <class T>
class Handles {
 public:
  template <class... Args>
  static T* make(Args&&... args) {
    State& s = state();
    std::lock_guard<std::mutex> lock(s.mutex);
    if (s.spare.size() > kKeep) {  // the oldest first, so that a stale handle stays stale for long
      T* object = s.spare.front();
      s.spare.erase(s.spare.begin());
      object->~T();
      return new (object) T(std::forward<Args>(args)...);
    }
    s.all.push_back(new T(std::forward<Args>(args)...));
    return s.all.back();
  }
  static void bury(T* object) {
    State& s = state();
    std::lock_guard<std::mutex> lock(s.mutex);
    object->magic = 0;
    s.spare.push_back(object);
  }

 private:
  static constexpr size_t kKeep = 64;
  struct State {
    std::mutex mutex;
    std::vector<T*> all, spare;
  };
  static State& state() {
    static State& s = *new State;
    return s;
  }
};

}  // namespace allot::sim
