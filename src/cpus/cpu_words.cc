// See cpu_words.h. Plain numbers go through the kernel's parser, so that there is one.
#include "cpus/cpu_words.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <map>
#include <optional>
#include <tuple>

namespace allot::cpus {
namespace {

tl::unexpected<Failure> no_list() {
  return failure(Errc::kBadValue, std::string(kNoCpuList), EINVAL);
}

bool names_all(std::string_view term) {
  return term.size() >= 3 && (term[0] | 0x20) == 'a' && (term[1] | 0x20) == 'l' &&
         (term[2] | 0x20) == 'l';
}

// "3-1": the range, in the order in which it would be one.
std::optional<std::string> backwards(std::string_view term) {
  unsigned first = 0, last = 0;
  const char* const end = term.data() + term.size();
  auto [dash, ec] = std::from_chars(term.data(), end, first);
  if (ec != std::errc{} || dash == end || *dash != '-') return std::nullopt;
  auto [rest, last_ec] = std::from_chars(dash + 1, end, last);
  if (last_ec != std::errc{} || last >= first) return std::nullopt;
  return fmt::format("{}-{}", last, first);
}

// "a-b:s" as taskset has it; the kernel's form has a '/' behind the colon.
std::optional<CpuSet> strided(std::string_view term) {
  unsigned numbers[3];
  const char* at = term.data();
  const char* const end = term.data() + term.size();
  for (int i = 0; i < 3; ++i) {
    auto [next, ec] = std::from_chars(at, end, numbers[i]);
    if (ec != std::errc{}) return std::nullopt;
    if (i == 2 ? next != end : next == end || *next != "-:"[i]) return std::nullopt;
    at = next + 1;
  }
  auto [first, last, step] = std::tie(numbers[0], numbers[1], numbers[2]);
  if (first > last || last >= static_cast<unsigned>(kMaxCpus) || step == 0) return std::nullopt;
  CpuSet set;
  for (unsigned cpu = first; cpu <= last; cpu += std::min(step, last - cpu + 1))
    set.add(static_cast<int>(cpu));
  return set;
}

// `count` is the number that "all" and "N" stand for, as nr_cpu_ids does in the kernel.
Expected<CpuSet> numbers_of(std::string_view term, int count) {
  if (std::optional<CpuSet> set = strided(term)) return *set;
  const bool words = term.find_first_of("aANlL") != std::string_view::npos;
  Result<CpuSet> set = parse_list(term, words ? std::max(count, 1) : kMaxCpus);
  if (set) return *set;
  if (std::optional<std::string> right = backwards(term)) {
    return failure(Errc::kBadValue,
                   fmt::format("the range {} runs backwards; write {}", term, *right), EINVAL);
  }
  if (set.error().os_errno == EINVAL) return no_list();
  return failure(Errc::kBadValue, "a CPU number beyond those that any machine has", ERANGE);
}

Expected<CpuSet> mask_of(std::string_view digits) {
  CpuSet set;
  if (digits.empty()) return no_list();
  for (size_t i = 0; i < digits.size(); ++i) {
    unsigned value = 0;
    const char* at = digits.data() + digits.size() - 1 - i;
    if (auto [end, ec] = std::from_chars(at, at + 1, value, 16); ec != std::errc{})
      return no_list();
    for (int bit = 0; bit < 4; ++bit) {
      if ((value >> bit & 1) == 0) continue;
      if (i * 4 + static_cast<size_t>(bit) >= static_cast<size_t>(kMaxCpus))
        return failure(Errc::kBadValue, "a mask with more CPUs than any machine has", ERANGE);
      set.add(static_cast<int>(i * 4) + bit);
    }
  }
  return set;
}

// The objects of a kind in order, each with its CPUs; nothing when there is no such kind.
std::optional<std::map<int, CpuSet>> objects(const Topology& t, std::string_view kind) {
  std::map<int, CpuSet> out;
  std::map<std::tuple<int, int, int, int>, CpuSet> order;
  if (kind == "core") {
    for (const Core& c : t.cores)
      order[{c.package, c.node, c.domain, c.threads.first()}] = c.threads;
  } else if (kind == "l3") {
    for (const Domain& d : t.domains) order[{d.package, d.node, d.cpus.first(), 0}] = d.cpus;
  } else if (kind == "package" || kind == "socket") {
    for (const Cpu& c : t.cpus) {
      if (c.online) order[{c.package, 0, 0, 0}].add(c.id);
    }
  } else if (kind == "node" || kind == "numa" || kind == "numanode") {
    for (const Node& n : t.nodes) out[n.id] = n.cpus & t.online;
    return out;
  } else {
    return std::nullopt;
  }
  for (const auto& [place, set] : order) out[static_cast<int>(out.size())] = set;
  return out;
}

Expected<CpuSet> cpus_of_objects(const Topology& t, const std::string& kind,
                                 std::string_view numbers) {
  std::optional<std::map<int, CpuSet>> all = objects(t, kind);
  if (!all) return no_list();
  const int last = all->empty() ? -1 : all->rbegin()->first;
  Expected<CpuSet> wanted = numbers_of(numbers, last + 1);
  if (!wanted && wanted.error().os_errno == ERANGE) {
    return failure(Errc::kBadValue,
                   fmt::format("there is no {} {}, the last one is {}", kind, numbers, last),
                   EINVAL);
  }
  if (!wanted) return wanted;
  if (names_all(numbers)) {
    CpuSet there;
    for (const auto& [id, cpus] : *all) {
      if (!cpus.empty()) there.add(id);
    }
    *wanted &= there;
  }
  CpuSet set;
  for (int id = wanted->first(); id >= 0; id = wanted->next(id)) {
    auto it = all->find(id);
    if (it == all->end())
      return failure(Errc::kBadValue,
                     fmt::format("there is no {} {}, the last one is {}", kind, id, last), EINVAL);
    if (it->second.empty())
      return failure(Errc::kBadValue, fmt::format("{} {} has no CPUs", kind, id), EINVAL);
    set |= it->second;
  }
  return set;
}

Expected<CpuSet> relative(const CpuSet& allowed, std::string_view numbers) {
  const std::vector<int> cpus = allowed.to_vector();
  Expected<CpuSet> wanted = numbers_of(numbers, static_cast<int>(cpus.size()));
  if (!wanted && wanted.error().os_errno == ERANGE) wanted = CpuSet{kMaxCpus - 1};
  if (!wanted) return wanted;
  CpuSet set;
  for (int i = wanted->first(); i >= 0; i = wanted->next(i)) {
    if (i >= static_cast<int>(cpus.size()))
      return failure(Errc::kBadValue,
                     fmt::format("'+' counts the allowed CPUs from 0, and there are {}: {}",
                                 cpus.size(), to_list(allowed)),
                     EINVAL);
    set.add(cpus[static_cast<size_t>(i)]);
  }
  return set;
}

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

// A word before a colon, which the numbers after it count: "core" of "core:0-1".
std::string kind_of(std::string_view* term) {
  size_t colon = term->find(':');
  if (colon == std::string_view::npos || is_digit(term->front()) || *term == ":") return "";
  std::string kind;
  for (char c : term->substr(0, colon))
    kind += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  // The kernel's N and "all" before a stride, as in all:1/2.
  if (kind == "n" || kind == "all") return "";
  term->remove_prefix(colon + 1);
  return kind;
}

}  // namespace

Expected<CpuSet> parse_cpu_words(const Topology& t, const CpuSet& allowed, std::string_view text) {
  text = trim(text);
  bool all_but = text.starts_with('!') || text.starts_with('~');
  bool counted = text.starts_with('+');
  if (all_but || counted) text.remove_prefix(1);
  CpuSet set;
  std::string kind;
  while (!text.empty()) {
    size_t comma = std::min(text.find(','), text.size());
    std::string_view term = trim(text.substr(0, comma));
    text.remove_prefix(std::min(comma + 1, text.size()));
    if (term.empty()) continue;
    if (std::string next = kind_of(&term); !next.empty()) kind = next;
    if (term.empty()) return no_list();
    bool mask = term.starts_with("0x") || term.starts_with("0X");
    if ((mask || !kind.empty()) && counted) return no_list();
    const bool numbers = !mask && (kind.empty() || kind == "pu");
    Expected<CpuSet> part = mask && kind.empty() ? mask_of(term.substr(2))
                            : !numbers           ? cpus_of_objects(t, kind, term)
                            : counted            ? relative(allowed, term)
                                                 : numbers_of(term, t.present.last() + 1);
    if (!part) return part;
    // "all" names none that is offline or not the caller's.
    if (numbers && !counted && names_all(term)) *part &= allowed;
    set |= *part;
  }
  return all_but ? allowed - set : set;
}

}  // namespace allot::cpus
