// The safetensors file format (huggingface/safetensors): 8-byte little-endian header length, a JSON header
// {name: {dtype, shape, data_offsets}}, raw little-endian data.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <map>
#include <span>
#include <string>
#include <variant>
#include <vector>

namespace longstrand {

struct TensorInfo {
  std::string dtype;  // F32, BF16, F16, F64, I64, U8, ...
  std::vector<std::int64_t> shape;
  std::int64_t begin_bytes = 0;  // from the end of the header
  std::int64_t end_bytes = 0;
  std::int64_t size() const;
};

/// Opens a file and checks its header: every tensor's type, shape and offsets against each other and against
/// the file's size, none overlapping. Throws std::runtime_error that names file, tensor and what is wrong.
class SafetensorsReader {
 public:
  explicit SafetensorsReader(std::filesystem::path path);

  const std::map<std::string, TensorInfo>& tensors() const { return tensors_; }
  /// Throws unless the file has that tensor in that shape.
  void require_shape(const std::string& name, std::span<const std::int64_t> shape) const;
  /// Converts F32, BF16, F16 and F64 to float. The shape must be the expected one.
  void read(const std::string& name, std::span<const std::int64_t> shape, std::span<float> out);
  /// I64 alone.
  void read(const std::string& name, std::span<const std::int64_t> shape, std::span<std::int64_t> out);
  /// The bytes as they are.
  std::vector<std::uint8_t> read_raw(const std::string& name);
  /// Throws std::runtime_error that names the file, for what a caller finds wrong in it.
  [[noreturn]] void fail(const std::string& what) const;

 private:
  const TensorInfo& info(const std::string& name) const;
  void parse_header(const std::string& header, std::int64_t data_bytes);

  std::filesystem::path path_;
  std::ifstream file_;
  std::int64_t data_begin_ = 0;
  std::map<std::string, TensorInfo> tensors_;
};

struct NamedTensor {
  std::string name;
  std::vector<std::int64_t> shape;
  std::variant<std::span<const float>, std::span<const std::int64_t>> values;  // F32 or I64
};

/// Writes under a temporary name, then renames. The tensors lie in the order in which the reference
/// implementation puts them. Throws std::runtime_error naming file and reason.
void write_safetensors(const std::filesystem::path& path, std::span<const NamedTensor> tensors);

/// Writes all parts, one after the other, under a temporary name, syncs it to the disk, then renames. Throws
/// as write_safetensors.
void write_file_atomically(const std::filesystem::path& path, std::span<const std::span<const char>> parts);

}  // namespace longstrand
