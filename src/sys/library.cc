// Finds a library. Others write the cache file, so every offset in it is checked against its size
// before use, and every text must end inside it.
#include "sys/library.h"

#include <elf.h>

#include <string_view>

#include "base/text.h"

namespace allot::sys {
namespace {

#if defined(__x86_64__)
constexpr uint16_t kMachine = EM_X86_64;
constexpr uint32_t kCacheFlags = 0x0303;  // ELF, libc6, x86-64
constexpr const char* kTripletFolder = "/usr/lib/x86_64-linux-gnu";
#else
constexpr uint16_t kMachine = EM_AARCH64;
constexpr uint32_t kCacheFlags = 0x0a03;
constexpr const char* kTripletFolder = "/usr/lib/aarch64-linux-gnu";
#endif

constexpr const char* kFolders[] = {kTripletFolder, "/usr/local/nvidia/lib64", "/usr/lib64",
                                    "/usr/lib", "/usr/lib/wsl/lib"};
constexpr uint64_t kLargestCache = 64u << 20;

// Layout of the cache, after glibc.
constexpr std::string_view kNewMagic = "glibc-ld.so.cache1.1";
constexpr std::string_view kOldMagic = "ld.so-1.7.0";
constexpr uint64_t kOldHeader = 16, kOldEntry = 12;
struct CacheHeader {
  char magic[20];
  uint32_t count;
  uint32_t text_bytes;
  uint8_t flags;
  uint8_t padding[3];
  uint32_t extensions;
  uint32_t unused[3];
};
static_assert(sizeof(CacheHeader) == 48);
struct CacheEntry {
  uint32_t flags;
  uint32_t key;  // offsets of texts, from the header
  uint32_t value;
  uint32_t os_version;
  uint64_t hwcap;  // not 0: for some processors only
};
static_assert(sizeof(CacheEntry) == 24);

class Search {
 public:
  Search(Root root, const LibraryQuery& query, char* out, uint32_t size)
      : root_(root), query_(query), out_(out), size_(size) {
    if (query.skip_folder == nullptr) return;
    auto folder = open_file(root, query.skip_folder, O_PATH | O_DIRECTORY);
    if (!folder) return;
    if (auto info = info_of(folder->get())) skip_folder_ = *info;
  }

  bool in_folder(std::string_view folder) {
    if (folder.empty() || folder[0] != '/') return false;
    TextBuf path(out_, size_);
    path.text(folder).put('/').text(query_.soname);
    return !path.cut() && usable();
  }

  bool in_library_path() {
    const char* at = query_.library_path;
    while (at != nullptr && *at != '\0') {
      const char* end = at;
      while (*end != '\0' && *end != ':' && *end != ';') ++end;
      if (in_folder({at, static_cast<size_t>(end - at)})) return true;
      at = *end == '\0' ? end : end + 1;
    }
    return false;
  }

  bool in_cache() {
    auto fd = open_file(root_, "/etc/ld.so.cache", O_RDONLY);
    if (!fd) return false;
    auto info = info_of(fd->get());
    if (!info || info->bytes < sizeof(CacheHeader) || info->bytes > kLargestCache) return false;
    auto map = map_memory(info->bytes);
    if (!map) return false;
    auto have = read_at(fd->get(), *map, info->bytes, 0);
    const bool found =
        have && scan_cache({static_cast<const char*>(*map), static_cast<size_t>(*have)});
    unmap(*map, info->bytes);
    return found;
  }

 private:
  // Goes through the entries in the linker's order, newest first.
  bool scan_cache(std::string_view cache) {
    cache.remove_prefix(new_format_at(cache));
    CacheHeader header;
    if (cache.size() < sizeof(header)) return false;
    __builtin_memcpy(&header, cache.data(), sizeof(header));
    if (std::string_view(header.magic, sizeof(header.magic)) != kNewMagic) return false;
    if (header.count > (cache.size() - sizeof(header)) / sizeof(CacheEntry)) return false;
    for (uint32_t i = 0; i < header.count; ++i) {
      CacheEntry entry;
      __builtin_memcpy(&entry, cache.data() + sizeof(header) + i * sizeof(entry), sizeof(entry));
      if (entry.flags != kCacheFlags || entry.hwcap != 0) continue;
      if (text_at(cache, entry.key) != query_.soname) continue;
      std::string_view path = text_at(cache, entry.value);
      if (path.empty() || path[0] != '/') continue;
      TextBuf text(out_, size_);
      text.text(path);
      if (!text.cut() && usable()) return true;
    }
    return false;
  }

  // An old-format cache may stand before the new one.
  static size_t new_format_at(std::string_view cache) {
    if (cache.size() < kOldHeader ||
        std::string_view(cache.data(), kOldMagic.size()) != kOldMagic) {
      return 0;
    }
    uint32_t count;
    __builtin_memcpy(&count, cache.data() + 12, sizeof(count));
    const uint64_t at = (kOldHeader + count * kOldEntry + 7) & ~uint64_t{7};
    return at < cache.size() ? at : cache.size();
  }

  static std::string_view text_at(std::string_view cache, uint32_t offset) {
    if (offset >= cache.size()) return {};
    const char* begin = cache.data() + offset;
    const size_t room = cache.size() - offset;
    size_t length = 0;
    while (length < room && begin[length] != '\0') ++length;
    return length == room ? std::string_view{} : std::string_view{begin, length};
  }

  // Whether the path in out_ is a library for us, and not one of ours.
  bool usable() {
    auto fd = open_file(root_, out_, O_RDONLY | O_NOCTTY | O_NONBLOCK);
    if (!fd) return false;
    auto info = info_of(fd->get());
    if (!info || (info->mode & S_IFMT) != S_IFREG) return false;
    if (query_.skip_inode != 0 && info->inode == query_.skip_inode &&
        info->device == query_.skip_device) {
      return false;
    }
    if (skip_folder_.inode != 0 && in_skipped_folder()) return false;
    unsigned char head[20];
    auto have = read_at(fd->get(), head, sizeof(head), 0);
    if (!have || *have != sizeof(head)) return false;
    uint16_t machine;
    __builtin_memcpy(&machine, head + 18, sizeof(machine));
    return __builtin_memcmp(head, ELFMAG, SELFMAG) == 0 && head[EI_CLASS] == ELFCLASS64 &&
           machine == kMachine;
  }

  bool in_skipped_folder() {
    uint32_t slash = 0;
    for (uint32_t i = 0; out_[i] != '\0'; ++i) {
      if (out_[i] == '/') slash = i;
    }
    if (slash == 0) return false;
    out_[slash] = '\0';
    auto folder = open_file(root_, out_, O_PATH | O_DIRECTORY);
    out_[slash] = '/';
    if (!folder) return false;
    auto info = info_of(folder->get());
    return info && info->inode == skip_folder_.inode && info->device == skip_folder_.device;
  }

  Root root_;
  const LibraryQuery& query_;
  char* out_;
  uint32_t size_;
  FileInfo skip_folder_ = {};
};

}  // namespace

Result<void> find_library(Root root, const LibraryQuery& query, char* out, uint32_t size) {
  if (size == 0) return fail(Errc::kNotFound);
  Search search(root, query, out, size);
  if (search.in_library_path() || search.in_cache()) return {};
  for (const char* folder : kFolders) {
    if (search.in_folder(folder)) return {};
  }
  out[0] = '\0';
  return fail(Errc::kNotFound);
}

}  // namespace allot::sys
