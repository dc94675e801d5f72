#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "kernels/view.hpp"
#include "src/safetensors.hpp"
#include "support/random.hpp"
#include "support/temporary_directory.hpp"

namespace longstrand::test {
namespace {

std::string with_length(const std::string& header, const std::string& data) {
  const std::uint64_t length = header.size();
  return std::string(reinterpret_cast<const char*>(&length), 8) + header + data;
}

class Safetensors : public testing::Test {
 protected:
  std::string write(const std::string& bytes) const {
    const std::string path = directory_ / "file.safetensors";
    std::ofstream(path, std::ios::binary) << bytes;
    return path;
  }
  TemporaryDirectory directory_;
};

TEST_F(Safetensors, WhatIsWrittenIsReadBack) {
  const std::vector<float> a = {1.5F, -2.0F, 3e-30F, 4.0F, 5.0F, 6.0F}, b = {7.0F};
  const std::vector<NamedTensor> tensors = {{"a", {2, 3}, a}, {"b", {1}, b}, {"none", {0}, {}}};
  const std::string path = directory_ / "x.safetensors";
  write_safetensors(path, tensors);
  SafetensorsReader reader(path);
  ASSERT_EQ(reader.tensors().size(), 3U);
  std::vector<float> got(6);
  reader.read("a", std::vector<std::int64_t>{2, 3}, got);
  EXPECT_EQ(got, a);
  EXPECT_FALSE(std::filesystem::exists(path + ".partial"));
  EXPECT_THROW(reader.read("a", std::vector<std::int64_t>{3, 2}, got), std::runtime_error);
  EXPECT_THROW(reader.read("c", std::vector<std::int64_t>{1}, got), std::runtime_error);
}

/// The reference implementation's order: wide elements first, which aligns all of them, then by name.
TEST_F(Safetensors, IntegersStandBeforeFloatsAndNamesAreSorted) {
  const std::vector<float> floats = {1.5F, -2.0F, 3.0F};
  const std::vector<std::int64_t> integers = {7, -(std::int64_t{1} << 40)};
  const std::vector<NamedTensor> tensors = {{"b", {3}, floats}, {"a", {1, 3}, floats}, {"c", {2}, integers}};
  const std::string path = directory_ / "x.safetensors";
  write_safetensors(path, tensors);
  SafetensorsReader reader(path);
  EXPECT_EQ(reader.tensors().at("c").begin_bytes, 0);
  EXPECT_EQ(reader.tensors().at("a").begin_bytes, 16);
  EXPECT_EQ(reader.tensors().at("b").begin_bytes, 28);
  std::vector<std::int64_t> got(2);
  reader.read("c", std::vector<std::int64_t>{2}, got);
  EXPECT_EQ(got, integers);
  EXPECT_THROW(reader.read("b", std::vector<std::int64_t>{3}, got), std::runtime_error);
}

TEST_F(Safetensors, OtherFloatTypesAreConverted) {
  const std::vector<float> values = {1.0F, -0.5F, 65504.0F, 0x1.0p-24F};
  const std::array<std::uint16_t, 4> halves = {0x3c00, 0xb800, 0x7bff, 0x0001};
  std::array<bfloat16, 4> brain;
  std::array<double, 4> doubles{};
  for (std::size_t i = 0; i < 4; ++i) {
    brain[i] = bfloat16(values[i]);
    doubles[i] = values[i];
  }
  const auto bytes = [](const auto& array) {
    return std::string(reinterpret_cast<const char*>(array.data()), array.size() * sizeof(array[0]));
  };
  const std::string path = write(with_length(R"({"h":{"dtype":"F16","shape":[4],"data_offsets":[0,8]},
      "b":{"dtype":"BF16","shape":[4],"data_offsets":[8,16]},"d":{"dtype":"F64","shape":[2,2],"data_offsets":[16,48]}})",
                                             bytes(halves) + bytes(brain) + bytes(doubles)));
  SafetensorsReader reader(path);
  std::vector<float> got(4);
  reader.read("h", std::vector<std::int64_t>{4}, got);
  EXPECT_EQ(got, values);
  reader.read("d", std::vector<std::int64_t>{2, 2}, got);
  EXPECT_EQ(got, values);
  reader.read("b", std::vector<std::int64_t>{4}, got);
  for (std::size_t i = 0; i < 4; ++i) EXPECT_NEAR(got[i], values[i], std::abs(values[i]) / 256);
}

TEST_F(Safetensors, MalformedFilesAreRefused) {
  const std::vector<std::pair<std::string, const char*>> cases = {
      {"", "empty"},
      {"1234567", "shorter than the length field"},
      {std::string(8, '\xff'), "a header longer than any file"},
      {with_length("not json", ""), "no JSON"},
      {with_length("[1]", ""), "no object"},
      {with_length(R"({"a":3})", ""), "no tensor"},
      {with_length(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,8]}})", "12345678"),
       "shape and bytes differ"},
      {with_length(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", "1234"), "data cut off"},
      {with_length(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})", "12345678"),
       "end before begin"},
      {with_length(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}})", "12345678"),
       "negative offset"},
      {with_length(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}})", "1234"), "one offset"},
      {with_length(R"({"a":{"dtype":"X9","shape":[1],"data_offsets":[0,4]}})", "1234"), "unknown type"},
      {with_length(R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", "1234"), "negative extent"},
      {with_length(R"({"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}})", "1234"),
       "a shape whose size overflows"},
      {with_length(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},
                       "b":{"dtype":"F32","shape":[1],"data_offsets":[2,6]}})",
                   "12345678"),
       "overlap"},
  };
  for (const auto& [bytes, reason] : cases) {
    EXPECT_THROW(SafetensorsReader(write(bytes)), std::runtime_error) << reason;
  }
}

TEST_F(Safetensors, DamagedHeadersNeverCrash) {
  const std::vector<float> values(64, 1.0F);
  const std::vector<NamedTensor> tensors = {{"first", {8, 8}, values}, {"second", {64}, values}};
  const std::string path = directory_ / "x.safetensors";
  write_safetensors(path, tensors);
  const std::string sound = content_of(path);
  Random random(1);
  for (int round = 0; round < 3000; ++round) {
    std::string damaged = sound;
    for (int i = 0; i < 3; ++i) damaged[random.integer(0, 200)] = static_cast<char>(random.integer(0, 255));
    if (round % 3 == 0) damaged.resize(random.integer(0, std::ssize(damaged)));
    try {
      SafetensorsReader reader(write(damaged));
      for (const auto& [name, info] : reader.tensors()) reader.read_raw(name);
    } catch (const std::runtime_error&) {
    }
  }
}

TEST_F(Safetensors, FailureToWriteNamesTheFileAndLeavesNothing) {
  const std::vector<NamedTensor> none;
  try {
    write_safetensors("/dev/null/x", none);
    FAIL();
  } catch (const std::runtime_error& error) {
    EXPECT_NE(std::string(error.what()).find("/dev/null/x"), std::string::npos);
  }
}

}  // namespace
}  // namespace longstrand::test
