// See cgroup_claim.h. A line of /proc/self/cgroup is HIERARCHY:CONTROLLERS:PATH.
#include "shm/cgroup_claim.h"

#include <sys/stat.h>

#include <string_view>

#include "base/text.h"
#include "core/shared.h"
#include "shm/region_folder.h"
#include "shm/slice_file.h"
#include "sys/file.h"

namespace allot::shm {
namespace {

constexpr uint32_t kRoom = 8192;
constexpr uint32_t kMostLevels = 128;
constexpr const char* kSelf = "self";

struct Line {
  std::string_view controllers;
  std::string_view path;
};

// The next line of `text` that can be read; false at the end.
bool next_line(std::string_view* text, Line* out) {
  while (!text->empty()) {
    const size_t end = text->find('\n');
    const std::string_view line(text->data(), end == std::string_view::npos ? text->size() : end);
    text->remove_prefix(line.size() < text->size() ? line.size() + 1 : line.size());
    const size_t first = line.find(':');
    if (first == std::string_view::npos) continue;
    const size_t second = line.find(':', first + 1);
    if (second == std::string_view::npos) continue;
    *out = {{line.data() + first + 1, second - first - 1},
            {line.data() + second + 1, line.size() - second - 1}};
    return true;
  }
  return false;
}

uint64_t claim_of(std::string_view controllers, std::string_view path) {
  const uint64_t parts[2] = {hash64(controllers.data(), controllers.size()),
                             hash64(path.data(), path.size())};
  const uint64_t claim = hash64(parts, sizeof(parts));
  return claim == 0 ? 1 : claim;
}

// Where several hierarchies have groups: those that only tell jobs and units apart come first, for
// others may be shared with strangers.
uint32_t rank_of(std::string_view controllers) {
  constexpr std::string_view kOrder[] = {"pids", "freezer", "name=systemd", ""};
  uint32_t rank = 1;
  for (uint32_t i = 0; i < 4; ++i) {
    if (controllers == kOrder[i]) rank = i + 2;
  }
  return rank;
}

// The claims of a process's groups and all above, with their depth.
struct Claims {
  uint64_t hash[kMostLevels];
  uint32_t depth[kMostLevels];
  uint32_t count;
};

void add_levels(const Line& line, Claims* out) {
  std::string_view path = line.path;
  while (path.size() > 1 && out->count < kMostLevels) {
    uint32_t depth = 0;
    for (const char c : path) depth += c == '/' ? 1 : 0;
    out->hash[out->count] = claim_of(line.controllers, path);
    out->depth[out->count++] = depth;
    const size_t slash = path.rfind('/');
    path = {path.data(), slash == std::string_view::npos ? 0 : slash};
  }
}

struct Search {
  const Claims* claims;
  char* out;
  uint32_t depth;
  uint64_t created_ns;
};

void consider_claim(void* context, const char* path) {
  Search& search = *static_cast<Search*>(context);
  auto slice = open_slice(path, false);
  if (!slice) return;
  const AllotHeader& header = slice->file->header;
  const uint64_t claim = core::load(header.cgroup_claim);
  uint32_t depth = 0;
  for (uint32_t i = 0; i < search.claims->count && claim != 0; ++i) {
    if (search.claims->hash[i] == claim && search.claims->depth[i] > depth)
      depth = search.claims->depth[i];
  }
  const bool better =
      depth > search.depth || (depth == search.depth && header.created_unix_ns > search.created_ns);
  if (depth > 0 && better && slice->owner_uid == sys::user_id() && slice_in_use(*slice)) {
    search.depth = depth;
    search.created_ns = header.created_unix_ns;
    TextBuf(search.out, kPathBytes).text(path);
  }
  unmap(*slice);
}

}  // namespace

uint64_t claim_of_own_cgroup() {
  char room[kRoom];
  const auto length = sys::read_file(sys::Root{}, "/proc/self/cgroup", room, sizeof(room));
  if (!length) return 0;
  Line best = {};
  uint32_t best_rank = 0;
  std::string_view text(room, *length);
  for (Line line; next_line(&text, &line);) {
    if (line.path.size() <= 1) continue;
    const uint32_t rank = rank_of(line.controllers);
    if (rank <= best_rank) continue;
    best = line;
    best_rank = rank;
  }
  return best_rank == 0 ? 0 : claim_of(best.controllers, best.path);
}

Result<void> find_slice_of_cgroup(const char* folder, char* out) {
  char room[kRoom];
  const auto length = sys::read_file(sys::Root{}, "/proc/self/cgroup", room, sizeof(room));
  if (!length) return fail(Errc::kNotFound);
  Claims claims;
  claims.count = 0;
  std::string_view text(room, *length);
  for (Line line; next_line(&text, &line);) add_levels(line, &claims);
  Search search{&claims, out, 0, 0};
  if (claims.count > 0) list_slices(folder, consider_claim, &search);
  if (search.depth == 0) return fail(Errc::kNotFound);
  return {};
}

Result<void> find_slice_of_self(const char* folder, char* out) {
  auto open = open_folder(folder);
  if (!open || !open->shared) return fail(Errc::kNotFound);
  auto fd = sys::open_at(open->fd.get(), kSelf, O_RDONLY | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK);
  if (!fd) return fail(fd.error().code == Errc::kNotFound ? Errc::kNotFound : Errc::kBadValue);
  auto info = sys::info_of(fd->get());
  auto owner = sys::info_of(open->fd.get());
  // Any user may make a file in this folder; whose word counts is root's.
  if (!info || !owner || !S_ISREG(info->mode) || info->uid != owner->uid) {
    return fail(Errc::kBadValue);
  }
  char text[kPathBytes];
  auto have = sys::read_at(fd->get(), text, sizeof(text) - 1, 0);
  if (!have) return fail(Errc::kBadValue);
  if (*have == 0) return fail(Errc::kNotFound);
  text[*have] = '\0';
  for (char* at = text; *at != '\0'; ++at) {
    if (*at == '\n') *at = '\0';
  }
  if (text[0] != '/') return slice_path(folder, text, out);
  TextBuf path(out, kPathBytes);
  path.text(text);
  return path.cut() ? fail(Errc::kBadValue) : Result<void>{};
}

}  // namespace allot::shm
