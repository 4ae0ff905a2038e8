// Slips counted as people make them: a letter too many, too few, wrong, or two of them exchanged.
#include "cli/words.h"

#include <algorithm>

namespace allot::cli {
namespace {

constexpr size_t kLongest = 64;  // longer words are data, not slips

size_t slips(std::string_view a, std::string_view b) {
  std::vector<std::vector<size_t>> d(a.size() + 1, std::vector<size_t>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) d[i][0] = i;
  for (size_t j = 0; j <= b.size(); ++j) d[0][j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t change = a[i - 1] == b[j - 1] ? 0 : 1;
      d[i][j] = std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + change});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
      }
    }
  }
  return d[a.size()][b.size()];
}

std::string lower_case(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return out;
}

}  // namespace

std::string nearest(std::string_view typed, const std::vector<std::string>& choices) {
  if (typed.empty() || typed.size() > kLongest) return "";
  const std::string wanted = lower_case(typed);
  const std::string* best = nullptr;
  size_t fewest = 0;
  for (const std::string& choice : choices) {
    const std::string candidate = lower_case(choice);
    if (candidate.size() > kLongest) continue;
    const size_t letters = std::max(wanted.size(), candidate.size());
    size_t count = 2 * slips(wanted, candidate);
    const size_t bare = wanted.find_first_not_of('-');
    const bool begun =
        bare != std::string::npos && wanted.size() - bare >= 3 && candidate.starts_with(wanted);
    if (begun) count = std::min<size_t>(count, 3);
    if (count > 2 * std::max<size_t>(1, letters / 3) && !begun) continue;
    if (best == nullptr || count < fewest) {
      best = &choice;
      fewest = count;
    }
  }
  return best == nullptr ? "" : *best;
}

std::string did_you_mean(std::string_view typed, const std::vector<std::string>& choices) {
  const std::string near = nearest(typed, choices);
  return near.empty() ? "" : "; did you mean '" + near + "'?";
}

}  // namespace allot::cli
