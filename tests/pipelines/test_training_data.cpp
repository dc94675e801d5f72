// From sequence files to batches: the token store, and the sampler over it.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <set>
#include <string>

#include "io/alphabet.hpp"
#include "io/input_error.hpp"
#include "pipelines/training_data.hpp"
#include "pipelines/window_sampler.hpp"
#include "support/temporary_directory.hpp"

namespace longstrand::pipelines {
namespace {

std::string random_bases(std::int64_t length, unsigned seed) {
  std::mt19937 random(seed);
  std::string bases(static_cast<std::size_t>(length), 'N');
  for (auto& base : bases) base = "ACGTacgt"[random() % 8];
  return bases;
}

std::string upper(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::toupper(c); });
  return text;
}

std::string reverse_complement(std::string bases) {
  std::reverse(bases.begin(), bases.end());
  for (auto& base : bases)
    base = base == 'A' ? 'T' : base == 'T' ? 'A' : base == 'C' ? 'G' : base == 'G' ? 'C' : base;
  return bases;
}

std::string bases_of(const TrainingSequence& sequence, std::int64_t begin, std::int64_t length) {
  std::vector<std::uint8_t> tokens(static_cast<std::size_t>(length));
  sequence.read(begin, tokens);
  return io::Alphabet::bases(tokens);
}

class TrainingData : public testing::Test {
 protected:
  std::string write_fasta(const std::string& name,
                          const std::vector<std::pair<std::string, std::string>>& records) {
    const auto path = folder_ / name;
    std::ofstream file(path);
    for (const auto& [record, bases] : records) file << '>' << record << '\n' << bases << '\n';
    return path;
  }
  std::filesystem::path data() const { return folder_ / "data"; }

  test::TemporaryDirectory folder_;
};

TEST_F(TrainingData, WindowsHoldTheBasesOfTheirPlaces) {
  const std::string a = random_bases(1000, 1);
  const std::string b = random_bases(70, 2);
  const std::vector<TrainingInput> inputs = {
      {.path = write_fasta("x.fa", {{"a", a}, {"empty", ""}, {"b", b}}), .split = Split::train}};
  std::vector<WindowPlace> laid;
  const auto store =
      make_training_data(data(), inputs, {.windows = {.window = 300}}, [&](const LaidWindow& window) {
        laid.push_back(window.place);
        EXPECT_EQ(window.record, laid.size() <= 3 ? "a" : "b");
      });
  ASSERT_EQ(store.window_count(Split::train),
            4);  // 300, 300, 300 of a, whose tail of 100 is left out; 70 of b
  EXPECT_EQ(store.window_tokens(Split::train), 970);
  const WindowSampler sampler(store, {.batch = 4, .order = Order::sequential});
  const auto batch = sampler.batch(0);
  EXPECT_EQ(bases_of(batch[1], 0, 300), upper(a.substr(300, 300)));
  EXPECT_EQ(bases_of(batch[1], 17, 5), upper(a.substr(317, 5)));
  EXPECT_EQ(bases_of(batch[3], 0, 70), upper(b));
}

TEST_F(TrainingData, LeavesOutWindowsOfMostlyN) {
  const std::string bases = random_bases(100, 3) + std::string(100, 'N') + random_bases(49, 4) +
                            std::string(51, 'n') + random_bases(50, 5) + std::string(50, 'N');
  const auto store =
      make_training_data(data(), {{.path = write_fasta("n.fa", {{"r", bases}}), .split = Split::train}},
                         {.windows = {.window = 100}});
  ASSERT_EQ(store.window_count(Split::train), 2);
  EXPECT_EQ(store.window(Split::train, 0).start, 0);
  EXPECT_EQ(store.window(Split::train, 1).start, 300);
}

TEST_F(TrainingData, NothingToTrainOnIsAnError) {
  const auto path = write_fasta("n.fa", {{"r", std::string(500, 'N')}});
  EXPECT_THROW(
      make_training_data(data(), {{.path = path, .split = Split::train}}, {.windows = {.window = 100}}),
      io::InputError);
}

TEST_F(TrainingData, AFailureLeavesNoStore) {
  const auto path = write_fasta("bad.fa", {{"r", "ACGT!"}});
  EXPECT_THROW(make_training_data(data(), {{.path = path}}, {.windows = {.window = 100}}), io::InputError);
  EXPECT_FALSE(std::filesystem::exists(data()));
  EXPECT_FALSE(std::filesystem::exists(data().string() + ".partial"));
}

TEST_F(TrainingData, IsFoundAgainUnlessInputsOrOptionsHaveChanged) {
  const std::vector<TrainingInput> inputs = {
      {.path = write_fasta("x.fa", {{"a", random_bases(1000, 1)}}), .split = Split::train}};
  const TrainingDataOptions options{.windows = {.window = 100}};
  EXPECT_FALSE(find_training_data(data(), inputs, options));
  make_training_data(data(), inputs, options);
  EXPECT_TRUE(find_training_data(data(), inputs, options));
  EXPECT_THROW(find_training_data(data(), inputs, {.windows = {.window = 200}}), io::InputError);
  write_fasta("x.fa", {{"a", random_bases(1001, 1)}});
  EXPECT_THROW(find_training_data(data(), inputs, options), io::InputError);
}

TEST_F(TrainingData, ADamagedStoreIsAnError) {
  const std::vector<TrainingInput> inputs = {
      {.path = write_fasta("x.fa", {{"a", random_bases(1000, 1)}}), .split = Split::train}};
  make_training_data(data(), inputs, {.windows = {.window = 100}});
  std::filesystem::resize_file(data() / "tokens.bin", 999);
  EXPECT_THROW(TokenStore{data()}, io::InputError);
  std::ofstream(data() / "store.json") << "{";
  EXPECT_THROW(TokenStore{data()}, io::InputError);
}

class Sampler : public TrainingData {
 protected:
  Sampler()
      : store_(make_training_data(data(), {{.path = write_fasta("g.fa", {{"g", random_bases(10'000, 7)}})}},
                                  {.windows = {.window = 128}, .split = {.valid = 0.1}})) {}

  std::vector<WindowSampler::Draw> draws(const WindowSampler& sampler, std::int64_t begin,
                                         std::int64_t count) const {
    std::vector<WindowSampler::Draw> result;
    for (std::int64_t i = begin; i < begin + count; ++i) result.push_back(sampler.draw(i));
    return result;
  }

  TokenStore store_;
};

TEST_F(Sampler, AnEpochVisitsEveryWindowOnceInAnOrderOfItsOwn) {
  const WindowSampler sampler(store_, {.seed = 5});
  const std::int64_t count = store_.window_count(Split::train);
  std::vector<std::vector<std::int64_t>> orders;
  for (int epoch = 0; epoch < 3; ++epoch) {
    std::vector<std::int64_t> starts;
    for (const auto& draw : draws(sampler, epoch * count, count)) starts.push_back(draw.window.start);
    orders.push_back(starts);
    EXPECT_EQ(std::set<std::int64_t>(starts.begin(), starts.end()).size(), static_cast<std::size_t>(count));
  }
  EXPECT_NE(orders[0], orders[1]);
  EXPECT_NE(orders[1], orders[2]);
}

TEST_F(Sampler, BatchesDependOnTheStepAlone) {
  const SamplerOptions options{.batch = 7, .seed = 5, .move_windows = true, .reverse_complement = true};
  const WindowSampler all(store_, options);
  for (std::int64_t step = 0; step < 20; ++step) all.batch(step);
  const WindowSampler resumed(store_, options);
  const auto expected = all.batch(20);
  const auto batch = resumed.batch(20);
  for (std::size_t i = 0; i < batch.size(); ++i) {
    EXPECT_EQ(bases_of(batch[i], 0, batch[i].length), bases_of(expected[i], 0, expected[i].length));
  }
}

TEST_F(Sampler, MovedWindowsStayInTheTrainingPart) {
  const WindowSampler sampler(store_, {.seed = 5, .move_windows = true});
  const std::int64_t train_end = 9000;
  std::set<std::int64_t> starts;
  for (const auto& draw : draws(sampler, 0, 20 * store_.window_count(Split::train))) {
    EXPECT_LE(draw.window.start + draw.window.length, train_end);
    starts.insert(draw.window.start);
  }
  EXPECT_GT(std::ssize(starts), 10 * store_.window_count(Split::train)) << "the windows hardly move";
}

TEST_F(Sampler, HalfOfTheSequencesAreReverseComplements) {
  const WindowSampler sampler(store_, {.batch = 2000, .seed = 5, .reverse_complement = true});
  int reversed = 0;
  for (const auto& draw : draws(sampler, 0, 2000)) reversed += draw.reversed ? 1 : 0;
  EXPECT_NEAR(reversed, 1000, 112);  // five standard deviations
}

TEST_F(Sampler, AReversedSequenceReadInPartsIsTheReverseComplement) {
  const SamplerOptions forward{.batch = 40, .seed = 5};
  auto both = forward;
  both.reverse_complement = true;
  const auto plain = WindowSampler(store_, forward).batch(0);
  const auto mixed = WindowSampler(store_, both).batch(0);
  int reversed = 0;
  for (std::size_t i = 0; i < plain.size(); ++i) {
    std::string text;
    for (std::int64_t begin = 0; begin < mixed[i].length; begin += 50) {
      text += bases_of(mixed[i], begin, std::min<std::int64_t>(50, mixed[i].length - begin));
    }
    const auto original = bases_of(plain[i], 0, plain[i].length);
    EXPECT_TRUE(text == original || text == reverse_complement(original)) << i;
    reversed += text == original ? 0 : 1;
  }
  EXPECT_GT(reversed, 0);
}

TEST_F(Sampler, MasksDependOnSeedAndStepAlone) {
  const auto targets_of = [](const std::vector<TrainingSequence>& sequences) {
    std::vector<std::vector<std::uint8_t>> targets;
    for (const TrainingSequence& sequence : sequences) {
      targets.emplace_back(static_cast<std::size_t>(sequence.length));
      sequence.read_targets(0, targets.back());
    }
    return targets;
  };
  const SamplerOptions options{.batch = 4, .order = Order::sequential, .seed = 5, .masked = 0.15};
  const WindowSampler sampler(store_, options);
  const std::int64_t epoch = sampler.steps_per_epoch();
  const auto first = targets_of(sampler.batch(0));
  EXPECT_EQ(first, targets_of(WindowSampler(store_, options).batch(0)));
  EXPECT_NE(first, targets_of(sampler.batch(epoch)));  // the same windows
  EXPECT_EQ(targets_of(sampler.validation(3)), targets_of(WindowSampler(store_, options).validation(3)));
  auto other = options;
  other.seed = 6;
  EXPECT_NE(first, targets_of(WindowSampler(store_, other).batch(0)));
  EXPECT_FALSE(WindowSampler(store_, {}).batch(0)[0].read_targets);
}

TEST_F(TrainingData, ClassesTakeTurnsWhateverTheirSizes) {
  const std::vector<TrainingInput> inputs = {
      {.path = write_fasta("big.fa", {{"b", random_bases(9000, 1)}}), .label = 1, .split = Split::train},
      {.path = write_fasta("small.fa", {{"s", random_bases(500, 2)}}), .label = 0, .split = Split::train},
      {.path = write_fasta("big2.fa", {{"c", random_bases(3000, 3)}}), .label = 1, .split = Split::train}};
  const auto store = make_training_data(data(), inputs, {.windows = {.window = 100}});
  EXPECT_EQ(store.class_begin(Split::train, 1), 5);
  EXPECT_EQ(store.class_begin(Split::train, 2), store.window_count(Split::train));
  const WindowSampler sampler(store, {.batch = 10, .seed = 1, .classes = {"a", "b"}});
  for (std::int64_t step = 0; step < 24; ++step) {
    const auto batch = sampler.batch(step);
    EXPECT_EQ(std::count_if(batch.begin(), batch.end(), [](const auto& s) { return s.label == 0; }), 5);
  }
  std::map<std::int64_t, int> visits;  // 120 draws of the large class are one round of its windows
  for (std::int64_t i = 0; i < 240; ++i) {
    const auto draw = sampler.draw(i);
    if (draw.window.label == 1) visits[draw.window.start] += 1;
  }
  EXPECT_EQ(visits.size(), 120U);
  try {
    WindowSampler(store, {.classes = {"a", "b", "Homo sapiens"}});
    FAIL();
  } catch (const io::InputError& error) {
    EXPECT_NE(std::string(error.what()).find("'Homo sapiens'"), std::string::npos) << error.what();
  }
}

TEST_F(Sampler, ValidationIsSpreadEvenlyOverItsPart) {
  const std::int64_t all = store_.window_count(Split::valid);
  EXPECT_EQ(std::ssize(WindowSampler(store_, {}).validation(1 << 20)), all);
  EXPECT_EQ(std::ssize(WindowSampler(store_, {}).validation(3)), 3);
  for (std::int64_t i = 0; i < all; ++i) EXPECT_GE(store_.window(Split::valid, i).start, 9000);
}

}  // namespace
}  // namespace longstrand::pipelines
