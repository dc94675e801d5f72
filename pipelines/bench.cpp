#include "pipelines/bench.hpp"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <functional>
#include <iostream>
#include <nlohmann/json.hpp>
#include <random>

#include "io/alphabet.hpp"
#include "io/atomic_file.hpp"
#include "io/chunk_stream.hpp"
#include "pipelines/command_line.hpp"
#include "pipelines/interrupt.hpp"
#include "pipelines/logging.hpp"
#include "pipelines/model_options.hpp"
#include "src/inference.hpp"
#include "src/masking.hpp"
#include "src/trainer.hpp"

namespace longstrand::pipelines {
namespace {

struct BenchOptions {
  std::vector<std::string> modes;
  std::vector<std::int64_t> lengths;
  ModelOptions model;
  int runs = 0;
};

// What one case measures: a call does the work once and returns the model's peak memory in bytes.
using Work = std::function<std::size_t()>;

void add_options(CommandLine& line, BenchOptions& options) {
  // clang-format off
  line.group("Cases").add_options()
      ("mode", po::value(&options.modes)->default_value({"embed", "train"}, "embed, train")->value_name("MODE"),
           "embed (mean pool), train (a step on one sequence) or io (FASTA to tokens); may be given more than once")
      ("length", po::value(&options.lengths)->default_value({65536}, "65536")->value_name("TOKENS"),
           "of the sequence; may be given more than once")
      ("runs", po::value(&options.runs)->default_value(5)->value_name("N")
           ->notifier(at_least<int>("runs", 1)), "timed runs of a case, behind one that is not timed");
  // clang-format on
  options.model.add_to(line, "Model", {.d_model = 256, .n_layer = 8});
  line.example("longstrand bench --mode embed --mode train --length 65536 --precision bf16 -t 2");
  line.example("longstrand bench --mode embed --bidirectional --rc equivariant");
}

std::vector<std::uint8_t> random_dna(std::int64_t length, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<std::uint8_t> tokens(static_cast<std::size_t>(length));
  std::ranges::generate(tokens, [&] { return static_cast<std::uint8_t>(io::kA + (random() >> 62)); });
  return tokens;
}

// The sequence as a record in chunks of one lane.
bool next_chunk(std::span<const std::uint8_t> tokens, std::int64_t chunk_tokens, std::int64_t& position,
                TokenBatch& batch) {
  const std::int64_t count = std::min(chunk_tokens, std::ssize(tokens) - position);
  if (count <= 0) return false;
  const auto piece = tokens.subspan(static_cast<std::size_t>(position), static_cast<std::size_t>(count));
  batch.lanes = 1;
  batch.length = chunk_tokens;
  batch.tokens.assign(static_cast<std::size_t>(chunk_tokens), io::kPad);
  std::ranges::copy(piece, batch.tokens.begin());
  batch.valid = {count};
  batch.starts = {static_cast<std::uint8_t>(position == 0)};
  position += count;
  batch.ends = {static_cast<std::uint8_t>(position == std::ssize(tokens))};
  return true;
}

Work embedding_work(const Model& model, const ExecutionOptions& execution, std::vector<std::uint8_t> tokens) {
  auto inference = std::make_shared<Inference>(model, execution, InferenceOptions{});
  return [inference, tokens = std::move(tokens)] {
    std::int64_t position = 0;
    inference->run(
        [&](TokenBatch& batch) {
          stop_if_interrupted(/*resumable=*/false);
          return next_chunk(tokens, inference->preferred_chunk_tokens(), position, batch);
        },
        [](const ChunkResult&) {}, [](std::int64_t) { stop_if_interrupted(/*resumable=*/false); });
    return inference->peak_bytes();
  };
}

Work training_work(Model& model, const ExecutionOptions& execution, std::vector<std::uint8_t> tokens) {
  constexpr double kLearningRate = 1e-4;
  const bool masks = model.config().bidirectional();
  auto trainer = std::make_shared<Trainer>(
      model, execution, TrainerOptions{.objective = masks ? Objective::masked_token : Objective::next_token});
  return [trainer, masks, tokens = std::move(tokens)] {
    const TrainingSequence sequence{.length = std::ssize(tokens),
                                    .read = [&](std::int64_t begin, std::span<std::uint8_t> out) {
                                      stop_if_interrupted(/*resumable=*/false);
                                      std::copy_n(tokens.begin() + begin, out.size(), out.begin());
                                    }};
    const TrainingSequence to_train_on = masks ? masked(sequence, MaskRule{}, /*seed=*/0) : sequence;
    trainer->step({&to_train_on, 1}, kLearningRate,
                  [](std::int64_t) { stop_if_interrupted(/*resumable=*/false); });
    return trainer->peak_bytes();
  };
}

// A FASTA file of one record on lines of 80 bases, gone with its last copy.
std::shared_ptr<const std::string> temporary_fasta(std::span<const std::uint8_t> tokens) {
  constexpr std::size_t kLineBases = 80;
  auto path = std::make_unique<std::string>(
      (std::filesystem::temp_directory_path() / ("longstrand-bench-" + std::to_string(::getpid()) + ".fa"))
          .string());
  io::AtomicFile file(*path);
  file.write(">bench\n");
  for (std::size_t i = 0; i < tokens.size(); i += kLineBases) {
    file.write(io::Alphabet::bases(tokens.subspan(i, std::min(kLineBases, tokens.size() - i))) + "\n");
  }
  file.commit();
  return {path.release(), [](const std::string* gone) {
            std::filesystem::remove(*gone);
            delete gone;
          }};
}

Work reading_work(std::span<const std::uint8_t> tokens) {
  return [path = temporary_fasta(tokens)] {
    io::ChunkStream stream({*path}, {}, {});
    io::TokenChunk chunk;
    while (stream.next(chunk)) stop_if_interrupted(/*resumable=*/false);
    return std::size_t{0};
  };
}

std::int64_t process_peak_bytes() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return std::int64_t{1024} * usage.ru_maxrss;
}

nlohmann::ordered_json measure(const Work& work, std::int64_t tokens, int runs) {
  work();
  std::vector<double> speeds;  // tokens a second
  std::size_t model_bytes = 0;
  for (int i = 0; i < runs; ++i) {
    const auto start = std::chrono::steady_clock::now();
    model_bytes = work();
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    speeds.push_back(static_cast<double>(tokens) / elapsed.count());
  }
  std::ranges::sort(speeds);
  return {{"tokens_per_second",
           {{"median", speeds[speeds.size() / 2]}, {"min", speeds.front()}, {"max", speeds.back()}}},
          {"runs", runs},
          {"model_peak_bytes", model_bytes},
          {"process_peak_bytes", process_peak_bytes()}};
}

}  // namespace

void bench(const std::vector<std::string>& arguments) {
  BenchOptions options;
  CommandLine line(
      "bench", "[options]",
      "Measures tokens a second and peak memory on a random model and random DNA, and prints one JSON\n"
      "object a case. process_peak_bytes is that of the whole program so far: run one case to compare.");
  add_options(line, options);
  if (!line.parse(arguments)) return;
  options.model.check();
  for (const std::string& mode : options.modes) one_of("mode", {"embed", "train", "io"})(mode);
  for (const std::int64_t length : options.lengths) at_least<std::int64_t>("length", 2)(length);

  const ExecutionOptions execution = line.execution().options;
  Model model(options.model.config(), line.common().seed);
  for (const std::string& mode : options.modes) {
    for (const std::int64_t length : options.lengths) {
      std::vector<std::uint8_t> tokens = random_dna(length, line.common().seed);
      const Work work = mode == "embed"   ? embedding_work(model, execution, std::move(tokens))
                        : mode == "train" ? training_work(model, execution, std::move(tokens))
                                          : reading_work(tokens);
      nlohmann::ordered_json result = {{"mode", mode}, {"length", length}};
      if (mode != "io") {
        result["architecture"] = describe(model.config());
        result["d_model"] = options.model.d_model;
        result["layers"] = options.model.layers;
        result["d_state"] = options.model.d_state;
        result["precision"] = precision_name(execution.precision);
        result["device"] = device_name(execution.device);
        result["threads"] = execution.threads;
      }
      result.update(measure(work, length, options.runs));
      result["version"] = LONGSTRAND_VERSION;
      std::cout << result.dump() << std::endl;
    }
  }
}

}  // namespace longstrand::pipelines
