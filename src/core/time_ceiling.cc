// The ceiling over a sliding span of time (time_ceiling.h).
//
// A counter that is set back at fixed moments lets twice the ceiling through around such a moment;
// a span that slides lets nothing through anywhere. Going on from a moment t, what the span ending
// at t + x holds is x plus what it still sees of the runs before t: it grows while the span's left
// edge crosses a pause, and stays while it crosses a run. So both questions are one walk over the
// runs, oldest or newest first.
//
// Room is for kRuns runs. When more fit into a span, the two with the shortest pause between them
// become one, at the end of the second: what ran counts, and never leaves a span too early. (Once
// the pause counted as used: a decode loop in periods of 10 ms, a hundred in the span of a second,
// then had 38.7 % of a ceiling of 50 on an H200.) What must not happen here: a run forgotten that a
// span may still see.
#include "core/time_ceiling.h"

#include <algorithm>

#include "core/time_policy.h"

namespace allot::core {
namespace {

constexpr uint64_t kForever = UINT64_MAX;
constexpr uint64_t kUsefulNs = 5'000'000;  // a shorter run is not worth its start and stop

// What may be used of a span; the whole span = no ceiling.
uint64_t budget_ns(uint32_t max_permille, uint64_t span_ns) {
  const uint32_t permille = max_permille == 0 ? kWhole : std::min(max_permille, kWhole);
  return permille == kWhole ? span_ns : span_ns / kWhole * permille;
}

}  // namespace

Ceiling::Run Ceiling::run(uint32_t i, uint64_t now_ns) const {
  if (i == count_) return {std::min(running_since_ns_, now_ns), now_ns};
  return runs_[(first_ + i) % kRuns];
}

uint32_t Ceiling::runs() const {
  return count_ + (running_ ? 1 : 0);
}

void Ceiling::start(uint64_t now_ns) {
  if (running_) return;
  now_ns = std::max(now_ns, count_ == 0 ? 0 : run(count_ - 1, now_ns).end_ns);
  running_ = true;
  running_since_ns_ = now_ns;
}

void Ceiling::stop(uint64_t now_ns) {
  if (!running_) return;
  running_ = false;
  const Run ended = {running_since_ns_, std::max(now_ns, running_since_ns_)};
  if (ended.end_ns == ended.begin_ns) return;
  while (count_ > 0 && ended.end_ns - std::min(ended.end_ns, run(0, 0).end_ns) >= span_ns_) {
    first_ = (first_ + 1) % kRuns;
    --count_;
  }
  if (count_ == kRuns) join_nearest();
  runs_[(first_ + count_) % kRuns] = ended;
  ++count_;
}

void Ceiling::forget(uint64_t now_ns) {
  count_ = 0;
  if (running_) running_since_ns_ = std::max(now_ns, running_since_ns_);
}

// Makes one run of the two with the shortest pause between them: as long as both, and it ends when
// the second one did. So spans see what ran, some of it a pause too long.
void Ceiling::join_nearest() {
  uint32_t at = 0;
  uint64_t shortest = kForever;
  for (uint32_t i = 0; i + 1 < count_; ++i) {
    const uint64_t pause = run(i + 1, 0).begin_ns - run(i, 0).end_ns;
    if (pause >= shortest) continue;
    shortest = pause;
    at = i;
  }
  const Run first = run(at, 0), second = run(at + 1, 0);
  const uint64_t begin_ns = second.begin_ns - (first.end_ns - first.begin_ns);
  runs_[(first_ + at) % kRuns] = {begin_ns, second.end_ns};
  for (uint32_t i = at + 1; i + 1 < count_; ++i) runs_[(first_ + i) % kRuns] = run(i + 1, 0);
  --count_;
}

uint64_t Ceiling::used_ns(uint64_t now_ns) const {
  const uint64_t left = now_ns - std::min(now_ns, span_ns_);
  uint64_t used = 0;
  for (uint32_t i = 0; i < runs(); ++i) {
    const Run r = run(i, now_ns);
    const uint64_t begin = std::max(r.begin_ns, left);
    const uint64_t end = std::min(r.end_ns, now_ns);
    if (end > begin) used += end - begin;
  }
  return used;
}

uint64_t Ceiling::may_run_until(uint64_t now_ns) const {
  const uint64_t budget = budget_ns(max_permille_, span_ns_);
  if (budget == span_ns_) return kForever;
  const uint64_t used = used_ns(now_ns);
  if (used > budget) return now_ns;
  uint64_t left = budget - used;  // of pauses that the span's left edge may still cross
  // The span may reach back before time 0: then it begins with a pause, counted here from span's
  // start.
  uint64_t ran = 0;  // how far the left edge has come
  const auto edge_to = [&](uint64_t to) { return to + span_ns_ - now_ns; };
  for (uint32_t i = 0; i < runs(); ++i) {
    const Run r = run(i, now_ns);
    if (r.end_ns + span_ns_ <= now_ns) continue;
    const uint64_t begin = r.begin_ns + span_ns_ < now_ns ? 0 : edge_to(r.begin_ns);
    if (begin > ran) {
      if (begin - ran > left) return now_ns + ran + left;
      left -= begin - ran;
    }
    ran = std::max(ran, edge_to(r.end_ns));
  }
  return now_ns + ran + left;
}

uint64_t Ceiling::next_start(uint64_t now_ns) const {
  const uint64_t budget = budget_ns(max_permille_, span_ns_);
  if (budget == span_ns_) return now_ns;
  const uint64_t useful = std::min(budget, kUsefulNs);
  // After a useful run its span may see this much of the runs before: the newest of them.
  uint64_t seen = budget - useful;
  for (uint32_t i = runs(); i-- > 0;) {
    const Run r = run(i, now_ns);
    const uint64_t length = r.end_ns - r.begin_ns;
    if (length > seen) return std::max(now_ns, r.end_ns - seen + span_ns_ - useful);
    seen -= length;
  }
  return now_ns;
}

}  // namespace allot::core
