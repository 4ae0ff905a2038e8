// Reads section headers, which is enough: the vendor's library has them, and doctor only reports.
#include "cli/gpus/elf_exports.h"

#include <elf.h>

#include <cstdint>
#include <cstring>
#include <fstream>
#include <optional>

namespace allot::cli {
namespace {

// `bytes` bytes from `offset`; shorter at the end of the file.
std::string read_at(std::ifstream& file, uint64_t offset, uint64_t bytes) {
  constexpr uint64_t kMostBytes = 64u << 20;  // a driver's symbol tables have some 100 KiB
  std::string text(static_cast<size_t>(bytes < kMostBytes ? bytes : kMostBytes), '\0');
  file.clear();
  file.seekg(static_cast<std::streamoff>(offset));
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(file.gcount()));
  return text;
}

template <class T>
std::vector<T> read_array(std::ifstream& file, uint64_t offset, uint64_t bytes) {
  const std::string text = read_at(file, offset, bytes);
  std::vector<T> out(text.size() / sizeof(T));
  if (!out.empty()) std::memcpy(out.data(), text.data(), out.size() * sizeof(T));
  return out;
}

}  // namespace

std::vector<std::string> exported_functions(const std::string& path) {
  std::vector<std::string> names;
  std::ifstream file(path, std::ios::binary);
  const std::vector<Elf64_Ehdr> head = read_array<Elf64_Ehdr>(file, 0, sizeof(Elf64_Ehdr));
  if (head.empty() || std::memcmp(head[0].e_ident, ELFMAG, SELFMAG) != 0 ||
      head[0].e_ident[EI_CLASS] != ELFCLASS64 || head[0].e_shentsize != sizeof(Elf64_Shdr)) {
    return names;
  }
  const auto sections =
      read_array<Elf64_Shdr>(file, head[0].e_shoff, uint64_t{head[0].e_shnum} * sizeof(Elf64_Shdr));
  for (const Elf64_Shdr& section : sections) {
    if (section.sh_type != SHT_DYNSYM || section.sh_link >= sections.size()) continue;
    const Elf64_Shdr& texts = sections[section.sh_link];
    const std::string strings = read_at(file, texts.sh_offset, texts.sh_size);
    for (const Elf64_Sym& symbol :
         read_array<Elf64_Sym>(file, section.sh_offset, section.sh_size)) {
      const bool function = ELF64_ST_TYPE(symbol.st_info) == STT_FUNC;
      if (!function || symbol.st_shndx == SHN_UNDEF || symbol.st_name >= strings.size()) continue;
      names.emplace_back(strings.c_str() + symbol.st_name);
    }
  }
  return names;
}

}  // namespace allot::cli
