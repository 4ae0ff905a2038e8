// Reading PTX text.
#include "module.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <map>
#include <string_view>

#include "memory.h"

namespace allot::sim {
namespace {

// PTX split into words, punctuation and strings, without comments.
class Tokens {
 public:
  explicit Tokens(std::string_view text) : text_(text) { next(); }
  const std::string& now() const { return token_; }
  bool end() const { return token_.empty(); }
  std::string take() {
    std::string t = token_;
    next();
    return t;
  }
  bool accept(const char* t) {
    if (token_ != t) return false;
    next();
    return true;
  }

 private:
  void skip_space() {
    while (at_ < text_.size()) {
      if (isspace(static_cast<unsigned char>(text_[at_]))) {
        at_++;
      } else if (text_.substr(at_, 2) == "//") {
        at_ = std::min(text_.find('\n', at_), text_.size());
      } else if (text_.substr(at_, 2) == "/*") {
        const size_t close = text_.find("*/", at_ + 2);
        at_ = close == std::string_view::npos ? text_.size() : close + 2;
      } else {
        return;
      }
    }
  }
  void next() {
    skip_space();
    token_.clear();
    const auto word = [&](char c) {
      return isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '$' || c == '%' || c == '.';
    };
    if (at_ == text_.size()) return;
    if (text_[at_] == '"') {
      const size_t close = std::min(text_.find('"', at_ + 1), text_.size() - 1);
      token_ = text_.substr(at_, close + 1 - at_);
      at_ = close + 1;
      return;
    }
    if (!word(text_[at_])) {
      token_ = text_[at_++];
      return;
    }
    while (at_ < text_.size() && word(text_[at_])) token_ += text_[at_++];
  }
  std::string_view text_;
  size_t at_ = 0;
  std::string token_;
};

uint32_t type_bytes(const std::string& type) {
  static const std::map<std::string, uint32_t> sizes = {
      {".b8", 1},  {".u8", 1},  {".s8", 1},  {".b16", 2},   {".u16", 2},   {".s16", 2},
      {".f16", 2}, {".b32", 4}, {".u32", 4}, {".s32", 4},   {".f32", 4},   {".b64", 8},
      {".u64", 8}, {".s64", 8}, {".f64", 8}, {".b128", 16}, {".f16x2", 4}, {".bf16", 2}};
  const auto it = sizes.find(type);
  return it != sizes.end() ? it->second : 0;
}

struct Declaration {
  std::string name;
  uint32_t element = 0, align = 0;
  uint64_t count = 1;
};

// `.align 8 .b8 name[16]` and the like, up to what ends it.
Declaration read_declaration(Tokens& t) {
  Declaration d;
  while (!t.end() && t.now()[0] == '.') {
    if (t.accept(".align")) {
      d.align = static_cast<uint32_t>(strtoul(t.take().c_str(), nullptr, 0));
    } else if (const uint32_t bytes = type_bytes(t.now()); bytes != 0) {
      d.element = bytes;
      t.take();
    } else {
      t.take();  // .ptr .global .v4 ...
    }
  }
  d.name = t.take();
  while (t.accept("[")) {
    if (t.now() != "]") d.count *= strtoull(t.take().c_str(), nullptr, 0);
    t.accept("]");
  }
  d.align = std::max(d.align, d.element);
  return d;
}

KernelKind kind_of(const std::string& name, bool empty_body) {
  if (name == "allot_spin") return KernelKind::kSpin;
  if (name == "allot_spin_told") return KernelKind::kSpinTold;
  if (name == "allot_fill") return KernelKind::kFill;
  if (name == "allot_check") return KernelKind::kCheck;
  if (name == "allot_fma") return KernelKind::kFma;
  return empty_body ? KernelKind::kEmpty : KernelKind::kUnknown;
}

// From behind `{` to behind its `}`; true when nothing but declarations and `ret` stands inside.
bool skip_body(Tokens& t) {
  bool empty = true;
  for (int depth = 1; !t.end() && depth > 0;) {
    const std::string word = t.take();
    if (word == "{") depth++;
    if (word == "}") depth--;
    if (word == "ret" || word == ";" || word == "{" || word == "}") continue;
    if (word[0] == '.') {  // .reg and friends, to the end of the line
      while (!t.end() && t.now() != ";") t.take();
      continue;
    }
    empty = false;
  }
  return empty;
}

bool read_entry(Tokens& t, Module* module) {
  auto f = std::make_unique<Function>();
  f->name = t.take();
  f->module = module;
  if (t.accept("(")) {
    while (!t.end() && !t.accept(")")) {
      if (t.accept(",")) continue;
      if (t.now() != ".param") return false;
      const Declaration d = read_declaration(t);
      if (d.element == 0) return false;
      const uint32_t align = std::max(d.align, 1u);
      const uint32_t offset = (f->param_bytes + align - 1) / align * align;
      const auto bytes = static_cast<uint32_t>(d.element * d.count);
      f->params.push_back(Param{offset, bytes});
      f->param_bytes = offset + bytes;
    }
  }
  if (f->param_bytes > 32764) return false;
  while (!t.end() && t.now() != "{" && t.now() != ";") {
    if (t.accept(".maxntid") || t.accept(".reqntid")) {
      uint32_t threads = 1;
      do threads *= static_cast<uint32_t>(strtoul(t.take().c_str(), nullptr, 0));
      while (t.accept(","));
      f->max_threads = threads;
    } else {
      t.take();
    }
  }
  if (t.accept(";")) return true;  // a declaration only
  if (!t.accept("{")) return false;
  f->kind = kind_of(f->name, skip_body(t));
  module->functions.push_back(std::move(f));
  return true;
}

// `= 5;` or `= {1, 2};` for integers; anything else leaves zeros.
void read_initial(Tokens& t, const Declaration& d, Variable* v) {
  size_t index = 0;
  while (!t.end() && t.now() != ";") {
    const std::string word = t.take();
    if (!isdigit(static_cast<unsigned char>(word[0])) || index >= d.count) continue;
    const uint64_t value = strtoull(word.c_str(), nullptr, 0);
    memcpy(v->initial.data() + index++ * d.element, &value, std::min<size_t>(d.element, 8));
  }
}

void read_variable(Tokens& t, Module* module) {
  const Declaration d = read_declaration(t);
  if (d.element == 0 || d.name.empty()) return;
  Variable v{d.name, d.element * d.count, std::vector<uint8_t>(d.element * d.count), 0};
  if (t.accept("=")) read_initial(t, d, &v);
  module->variables.push_back(std::move(v));
}

bool looks_binary(const void* image) {
  uint32_t word;
  memcpy(&word, image, sizeof word);
  return word == 0x464c457f || word == 0xba55ed50 ||
         word == 0x466243b1;  // ELF, fatbin, its wrapper
}

}  // namespace

std::mutex& module_lock() {
  static std::mutex& mutex = *new std::mutex;
  return mutex;
}

CUresult parse_image(const void* image, std::unique_ptr<Module>* out) {
  if (image == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const char* text = static_cast<const char*>(image);
  for (int i = 0; i < 4; i++) {
    if (text[i] == '\0') return CUDA_ERROR_INVALID_IMAGE;
  }
  if (looks_binary(image)) return CUDA_ERROR_NO_BINARY_FOR_GPU;
  Tokens tokens(text);
  if (tokens.now() != ".version") return CUDA_ERROR_INVALID_PTX;
  auto module = std::make_unique<Module>();
  while (!tokens.end()) {
    const std::string word = tokens.take();
    if (word == ".entry") {
      if (!read_entry(tokens, module.get())) return CUDA_ERROR_INVALID_PTX;
    } else if (word == ".func") {
      while (!tokens.end() && tokens.now() != "{" && tokens.now() != ";") tokens.take();
      if (tokens.accept("{")) skip_body(tokens);
    } else if (word == ".global" || word == ".const") {
      read_variable(tokens, module.get());
    }
  }
  *out = std::move(module);
  return CUDA_SUCCESS;
}

CUresult gather_params(const Function& f, void** arguments, void** extra, Params* out) {
  out->bytes = f.param_bytes;
  if (f.param_bytes > out->small.size()) out->large.resize(f.param_bytes);
  if (f.params.empty()) return CUDA_SUCCESS;
  if (arguments != nullptr) {
    if (extra != nullptr) return CUDA_ERROR_INVALID_VALUE;
    for (size_t i = 0; i < f.params.size(); i++) {
      if (arguments[i] == nullptr) return CUDA_ERROR_INVALID_VALUE;
      memcpy(out->data() + f.params[i].offset, arguments[i], f.params[i].bytes);
    }
    return CUDA_SUCCESS;
  }
  const void* buffer = nullptr;
  size_t size = 0;
  for (void** at = extra; at != nullptr && *at != CU_LAUNCH_PARAM_END; at += 2) {
    if (*at == CU_LAUNCH_PARAM_BUFFER_POINTER) {
      buffer = at[1];
    } else if (*at == CU_LAUNCH_PARAM_BUFFER_SIZE) {
      size = *static_cast<size_t*>(at[1]);
    } else {
      return CUDA_ERROR_INVALID_VALUE;
    }
  }
  if (buffer == nullptr || size < f.param_bytes) return CUDA_ERROR_INVALID_VALUE;
  memcpy(out->data(), buffer, f.param_bytes);
  return CUDA_SUCCESS;
}

CUresult place_variables(Module* module, Context* context) {
  for (Variable& v : module->variables) {
    if (v.address != 0) continue;
    if (const CUresult r = context->heap->allocate(v.bytes, &v.address); r != CUDA_SUCCESS)
      return r;
    memcpy(reinterpret_cast<void*>(v.address), v.initial.data(), v.bytes);
  }
  return CUDA_SUCCESS;
}

}  // namespace allot::sim
