#include "src/safetensors.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <utility>

#include "kernels/check.hpp"
#include "kernels/view.hpp"

namespace longstrand {
namespace {

static_assert(std::endian::native == std::endian::little,
              "safetensors data are read and written as they lie");

constexpr std::int64_t kLongestHeader_bytes = 100'000'000;  // the format's own limit

std::int64_t element_bytes(const std::string& dtype) {
  static const std::map<std::string, std::int64_t> kBytes = {
      {"F64", 8},  {"I64", 8}, {"U64", 8}, {"F32", 4}, {"I32", 4}, {"U32", 4}, {"F16", 2},
      {"BF16", 2}, {"I16", 2}, {"U16", 2}, {"I8", 1},  {"U8", 1},  {"BOOL", 1}};
  const auto found = kBytes.find(dtype);
  return found == kBytes.end() ? 0 : found->second;
}

float half_to_float(std::uint16_t half) {
  const int exponent = (half >> 10) & 31;
  const int mantissa = half & 1023;
  const float sign = (half & 0x8000) ? -1.0F : 1.0F;
  if (exponent == 31) return mantissa ? std::nanf("") : sign * INFINITY;
  if (exponent == 0) return sign * std::ldexp(static_cast<float>(mantissa), -24);
  return sign * std::ldexp(static_cast<float>(mantissa + 1024), exponent - 25);
}

template <class Stored, class Convert>
void convert(const std::vector<std::uint8_t>& bytes, std::span<float> out, Convert to_float) {
  for (std::size_t i = 0; i < out.size(); ++i) {
    Stored value;
    std::memcpy(&value, bytes.data() + i * sizeof(Stored), sizeof(Stored));
    out[i] = to_float(value);
  }
}

constexpr auto as_bytes = [](const auto& values) {
  return std::span<const char>(reinterpret_cast<const char*>(values.data()), values.size_bytes());
};

}  // namespace

std::int64_t TensorInfo::size() const {
  std::int64_t product = 1;
  for (const std::int64_t extent : shape) product *= extent;
  return product;
}

void SafetensorsReader::fail(const std::string& what) const {
  throw std::runtime_error(path_.string() + ": " + what);
}

SafetensorsReader::SafetensorsReader(std::filesystem::path path) : path_(std::move(path)) {
  file_.open(path_, std::ios::binary);
  if (!file_) fail(std::string("cannot open: ") + std::strerror(errno));
  file_.seekg(0, std::ios::end);
  const auto file_bytes = static_cast<std::int64_t>(file_.tellg());
  file_.seekg(0);
  std::uint64_t header_bytes = 0;
  if (file_bytes < 8 || !file_.read(reinterpret_cast<char*>(&header_bytes), 8)) {
    fail("not a safetensors file: shorter than 8 bytes");
  }
  if (header_bytes > static_cast<std::uint64_t>(std::min(file_bytes - 8, kLongestHeader_bytes))) {
    fail(concat("not a safetensors file, or truncated: header of ", header_bytes, " bytes in a file of ",
                file_bytes));
  }
  std::string header(header_bytes, '\0');
  if (!file_.read(header.data(), static_cast<std::streamsize>(header_bytes))) fail("cannot read the header");
  data_begin_ = 8 + static_cast<std::int64_t>(header_bytes);
  parse_header(header, file_bytes - data_begin_);
}

void SafetensorsReader::parse_header(const std::string& header, std::int64_t data_bytes) {
  const auto json = nlohmann::json::parse(header, nullptr, false);
  if (!json.is_object()) fail("the header is not a JSON object");
  std::vector<std::pair<std::int64_t, std::int64_t>> ranges;
  for (const auto& [name, entry] : json.items()) {
    if (name == "__metadata__") continue;
    TensorInfo tensor;
    try {
      tensor.dtype = entry.at("dtype").get<std::string>();
      tensor.shape = entry.at("shape").get<std::vector<std::int64_t>>();
      const auto& offsets = entry.at("data_offsets");
      if (offsets.size() != 2) fail("tensor " + name + ": data_offsets is not a pair");
      tensor.begin_bytes = offsets.at(0).get<std::int64_t>();
      tensor.end_bytes = offsets.at(1).get<std::int64_t>();
    } catch (const nlohmann::json::exception& error) {
      fail("tensor " + name + ": " + error.what());
    }
    const std::int64_t unit_bytes = element_bytes(tensor.dtype);
    if (unit_bytes == 0) fail("tensor " + name + ": unknown dtype " + tensor.dtype);
    if (tensor.begin_bytes < 0 || tensor.end_bytes < tensor.begin_bytes || tensor.end_bytes > data_bytes) {
      fail(concat("tensor ", name, ": bytes ", tensor.begin_bytes, " to ", tensor.end_bytes,
                  " lie outside the file's ", data_bytes, " (truncated?)"));
    }
    std::int64_t expected_bytes = unit_bytes;
    for (const std::int64_t extent : tensor.shape) {
      if (extent < 0 || (extent > 0 && expected_bytes > data_bytes / extent + 1)) {
        fail("tensor " + name + ": its shape does not fit its bytes");
      }
      expected_bytes *= extent;
    }
    if (expected_bytes != tensor.end_bytes - tensor.begin_bytes) {
      fail("tensor " + name + ": its shape does not fit its bytes");
    }
    if (tensor.begin_bytes < tensor.end_bytes) ranges.emplace_back(tensor.begin_bytes, tensor.end_bytes);
    tensors_.emplace(name, std::move(tensor));
  }
  std::sort(ranges.begin(), ranges.end());
  for (std::size_t i = 1; i < ranges.size(); ++i) {
    if (ranges[i].first < ranges[i - 1].second) fail("two tensors overlap");
  }
}

const TensorInfo& SafetensorsReader::info(const std::string& name) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) fail("tensor " + name + " is missing");
  return found->second;
}

std::vector<std::uint8_t> SafetensorsReader::read_raw(const std::string& name) {
  const TensorInfo& tensor = info(name);
  std::vector<std::uint8_t> bytes(static_cast<std::size_t>(tensor.end_bytes - tensor.begin_bytes));
  file_.clear();
  file_.seekg(data_begin_ + tensor.begin_bytes);
  if (!file_.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()))) {
    fail("tensor " + name + ": cannot read its data");
  }
  return bytes;
}

void SafetensorsReader::require_shape(const std::string& name, std::span<const std::int64_t> shape) const {
  const TensorInfo& tensor = info(name);
  if (std::equal(shape.begin(), shape.end(), tensor.shape.begin(), tensor.shape.end())) return;
  const auto text = [](std::span<const std::int64_t> extents) {
    std::string list;
    for (const std::int64_t extent : extents) list += (list.empty() ? "" : ", ") + std::to_string(extent);
    return "[" + list + "]";
  };
  fail("tensor " + name + ": expected shape " + text(shape) + ", got " + text(tensor.shape));
}

void SafetensorsReader::read(const std::string& name, std::span<const std::int64_t> shape,
                             std::span<float> out) {
  require_shape(name, shape);
  const TensorInfo& tensor = info(name);
  const std::vector<std::uint8_t> bytes = read_raw(name);
  if (tensor.dtype == "F32") {
    convert<float>(bytes, out, [](float value) { return value; });
  } else if (tensor.dtype == "BF16") {
    convert<bfloat16>(bytes, out, [](bfloat16 value) { return static_cast<float>(value); });
  } else if (tensor.dtype == "F16") {
    convert<std::uint16_t>(bytes, out, half_to_float);
  } else if (tensor.dtype == "F64") {
    convert<double>(bytes, out, [](double value) { return static_cast<float>(value); });
  } else {
    fail("tensor " + name + ": expected floating-point numbers, got " + tensor.dtype);
  }
}

void SafetensorsReader::read(const std::string& name, std::span<const std::int64_t> shape,
                             std::span<std::int64_t> out) {
  require_shape(name, shape);
  if (info(name).dtype != "I64") fail("tensor " + name + ": expected I64, got " + info(name).dtype);
  const std::vector<std::uint8_t> bytes = read_raw(name);
  std::memcpy(out.data(), bytes.data(), bytes.size());
}

void write_safetensors(const std::filesystem::path& path, std::span<const NamedTensor> tensors) {
  // Wide elements first, which aligns all of them; then by name.
  std::vector<const NamedTensor*> ordered;
  for (const NamedTensor& tensor : tensors) ordered.push_back(&tensor);
  std::ranges::sort(ordered, {}, [](const NamedTensor* tensor) {
    return std::make_pair(std::holds_alternative<std::span<const float>>(tensor->values), tensor->name);
  });
  nlohmann::ordered_json json;
  json["__metadata__"] = {{"format", "pt"}};
  std::vector<std::span<const char>> parts(2);  // the header's length, and the header
  std::size_t offset_bytes = 0;
  for (const NamedTensor* tensor : ordered) {
    const bool floats = std::holds_alternative<std::span<const float>>(tensor->values);
    parts.push_back(std::visit(as_bytes, tensor->values));
    const std::size_t end_bytes = offset_bytes + parts.back().size();
    json[tensor->name] = {{"dtype", floats ? "F32" : "I64"},
                          {"shape", tensor->shape},
                          {"data_offsets", {offset_bytes, end_bytes}}};
    offset_bytes = end_bytes;
  }
  std::string header = json.dump();
  header.resize((header.size() + 7) / 8 * 8, ' ');  // the data begin at a multiple of 8
  const std::uint64_t header_bytes = header.size();
  parts[0] = {reinterpret_cast<const char*>(&header_bytes), 8};
  parts[1] = header;
  write_file_atomically(path, parts);
}

void write_file_atomically(const std::filesystem::path& path, std::span<const std::span<const char>> parts) {
  const std::string temporary = path.string() + ".partial";
  const auto fail = [&](const char* what, int file) {
    const int reason = errno;
    if (file >= 0) ::close(file);
    ::unlink(temporary.c_str());
    throw std::runtime_error(path.string() + ": " + what + ": " + std::strerror(reason));
  };
  const int file = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (file < 0) fail("cannot create", -1);
  for (std::span<const char> part : parts) {
    while (!part.empty()) {
      const ssize_t written = ::write(file, part.data(), part.size());
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) fail("cannot write", file);
      part = part.subspan(static_cast<std::size_t>(written));
    }
  }
  if (::fsync(file) != 0) fail("cannot write", file);
  if (::close(file) != 0) fail("cannot write", -1);
  if (::rename(temporary.c_str(), path.c_str()) != 0) fail("cannot rename", -1);
}

}  // namespace longstrand
