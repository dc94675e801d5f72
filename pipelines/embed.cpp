#include "pipelines/embed.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <filesystem>

#include "pipelines/embedding_rows.hpp"
#include "pipelines/interrupt.hpp"
#include "pipelines/logging.hpp"
#include "pipelines/record_options.hpp"
#include "pipelines/record_pass.hpp"

namespace longstrand::pipelines {
namespace {

struct EmbedOptions {
  RecordOptions records;
  std::string output;
  std::string pool;
  std::string layer;
  bool resume = false;

  bool per_token() const { return pool == "none"; }
};

void add_options(CommandLine& line, EmbedOptions& options) {
  options.records.add_to(line);
  // clang-format off
  line.group("Embeddings").add_options()
      ("pool", po::value(&options.pool)->default_value("mean")->value_name("HOW")
           ->notifier(one_of("pool", {"mean", "last", "max", "none"})),
           "mean, last or max over the record's bases, or none: one row a base")
      ("layer", po::value(&options.layer)->default_value("final")->value_name("K"),
           "1 ... number of layers: the residual stream behind that layer; final: behind the last norm; logits");
  // clang-format on
  options.records.add_strands_to(line, "Embeddings", "a record's embedding and its reverse complement's");
  // clang-format off
  line.group("Output").add_options()
      ("output,o", po::value(&options.output)->required()->value_name("OUT.h5ad"), "the file to write")
      ("resume", po::bool_switch(&options.resume), "go on with what an interrupted run of this command left");
  // clang-format on
  line.example("longstrand embed -m run/model --window 4096 data/genomes/*.fa.gz -o genomes.h5ad");
  line.example(
      "longstrand embed -m run/model -r 17:69001-70000 --pool none data/fixtures/chr17.fa.gz -o bases.h5ad");
}

void check(const EmbedOptions& options, const CommandLine& line) {
  options.records.check(line);
  if (options.output == "-") throw UsageError("--output -: HDF5 cannot be streamed; give a file's name");
  if (options.per_token() && options.records.both_strands()) {
    throw UsageError("--reverse-complement average needs --pool mean, last or max");
  }
  if (options.resume &&
      std::ranges::find(options.records.input.paths, "-") != options.records.input.paths.end()) {
    throw UsageError("--resume cannot read standard input again");
  }
}

std::int64_t parse_layer(const std::string& text) {
  if (text == "final") return InferenceOptions::kFinal;
  if (text == "logits") return InferenceOptions::kLogits;
  std::int64_t layer = 0;
  const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), layer);
  if (error != std::errc() || rest != text.data() + text.size() || layer < 1) {
    throw UsageError(fmt::format("--layer '{}': must be a layer's number from 1, final or logits", text));
  }
  return layer;
}

InferenceOptions inference_options(const EmbedOptions& options) {
  InferenceOptions inference{.readout = options.per_token() ? Readout::tokens : Readout::pooled,
                             .layer = parse_layer(options.layer)};
  if (!options.per_token()) inference.pooling = parse_pooling(options.pool);
  return inference;
}

// Changes when a file does.
std::string identity_of(const std::string& path) {
  std::error_code error;
  const auto size = std::filesystem::file_size(path, error);
  if (error) return path;
  return fmt::format("{} {} {}", path, size,
                     std::filesystem::last_write_time(path).time_since_epoch().count());
}

// Everything that rows and their order depend on.
std::string fingerprint(const EmbedOptions& options, const Model& model, Precision precision) {
  const RecordOptions& records = options.records;
  const std::string& reference = records.input.reading.reference;
  std::vector<std::string> inputs;
  for (const std::string& path : records.input.paths) inputs.push_back(identity_of(path));
  const auto identity_or_none = [](const std::string& path) {
    return path.empty() ? "none" : identity_of(path);
  };
  return fmt::format(
      "model {} precision {} pool {} layer {} reverse-complement {} window {} stride {} "
      "regions {} {} split {} {} reference {} ambiguous {} inputs {}",
      model.fingerprint(), precision_name(precision), options.pool, options.layer, records.reverse_complement,
      records.window, records.stride, fmt::join(records.regions, ","), identity_or_none(records.regions_file),
      identity_or_none(records.split), records.only, reference.empty() ? "" : identity_of(reference),
      records.input.reading.ambiguous, fmt::join(inputs, ","));
}

io::AnnDataSettings settings(const CommandLine& line, const EmbedOptions& options, const Model& model,
                             Precision precision, std::int64_t width) {
  return {.n_var = width,
          .rows = options.per_token() ? io::RowKind::kTokens : io::RowKind::kPooled,
          .fingerprint = fingerprint(options, model, precision),
          .uns = {{"model_fingerprint", model.fingerprint()},
                  {"command_line", line.text()},
                  {"version", LONGSTRAND_VERSION},
                  {"seed", static_cast<std::int64_t>(line.common().seed)},
                  {"pooling", options.pool},
                  {"layer", options.layer},
                  {"reverse_complement", options.records.reverse_complement},
                  {"window", options.records.window},
                  {"stride", options.records.stride},
                  {"precision", precision_name(precision)}}};
}

// Where a file of one row a base goes on: at the record that holds the next base.
struct TokenPosition {
  std::int64_t records = 0;  // complete
  std::int64_t tokens = 0;   // done of the one after them
};

TokenPosition find_token(const CommandLine& line, const EmbedOptions& options, std::int64_t rows) {
  TokenPosition position;
  if (rows == 0) return position;
  io::ChunkStream stream = options.records.open(line.common(), {.chunk_tokens = io::kLaneBufferTokens});
  io::TokenChunk chunk;
  while (stream.next(chunk)) {
    stop_if_interrupted(/*resumable=*/true);
    position.tokens += chunk.valid[0];
    if (!chunk.ends[0]) continue;
    if (position.tokens > rows) break;
    rows -= position.tokens;
    position = {.records = position.records + 1};
  }
  position.tokens = rows;
  return position;
}

// What every chunk's result becomes.
using Deliver = std::function<void(const ChunkResult&)>;

// What is made of both strands has none.
Deliver one_row_a_record(EmbeddingRows& rows, const CopyRule& copies, bool equivariant) {
  const bool of_both_strands = copies.both_strands || equivariant;
  return for_each_mean(copies, [&rows, of_both_strands](const ChunkResult& result, std::int64_t lane,
                                                        std::span<const float> values) {
    const io::RecordInfo& record = record_of(result, lane);
    rows.add_record(record, of_both_strands ? '.' : record.strand, values);
  });
}

// `skip` tokens of the first record were written by an earlier run.
Deliver one_row_a_token(EmbeddingRows& rows, std::int64_t skip) {
  return [&rows, skip](const ChunkResult& result) mutable {
    const std::int64_t width = result.tokens.shape[2];
    for (std::int64_t lane = 0; lane < result.batch.lanes; ++lane) {
      const std::int64_t valid = result.batch.valid[lane];
      const std::int64_t known = std::min(skip, valid);
      skip -= known;
      if (known == valid) continue;
      rows.add_tokens(record_of(result, lane), origin_of(result.batch).offset[lane] + known, valid - known,
                      {result.tokens.at(lane, known), static_cast<std::size_t>((valid - known) * width)});
    }
  };
}

}  // namespace

void embed(const std::vector<std::string>& arguments) {
  EmbedOptions options;
  CommandLine line(
      "embed", "-m MODEL INPUT... -o OUT.h5ad",
      "Writes embeddings in AnnData's layout: X float32, one row a record, window or base; obs with the\n"
      "record's name and 0-based, half-open coordinates; uns with the model's fingerprint and this\n"
      "command line. Windows start afresh; whole records stream, whatever their length.");
  add_options(line, options);
  if (!line.parse(arguments)) return;
  check(options, line);
  const InferenceOptions what = inference_options(options);

  const Model model = Model::load(options.records.model);
  options.records.check(model.config());
  const ExecutionOptions execution = line.execution().options;
  if (what.layer > model.config().n_layer) {
    throw UsageError(fmt::format("--layer {}: the model has {} layers", what.layer, model.config().n_layer));
  }
  Inference inference(model, execution, what);

  using Start = io::AnnDataWriter::Start;
  io::AnnDataWriter writer(options.output,
                           settings(line, options, model, execution.precision, inference.width()),
                           options.resume ? Start::kResume : Start::kFresh);
  const std::int64_t done = writer.rows();
  if (done > 0) spdlog::info("going on behind {} rows of an earlier run", done);
  TokenPosition position{.records = done};
  if (options.per_token()) position = find_token(line, options, done);

  const RecordPass pass{
      .label = "embedding", .copies = {.both_strands = options.records.both_strands()}, .resumable = true};
  EmbeddingRows rows(writer);
  const Deliver deliver = options.per_token()
                              ? one_row_a_token(rows, position.tokens)
                              : one_row_a_record(rows, pass.copies, model.config().equivariant);
  try {
    run_records(inference, options.records.open(line.common(), chunks_for(inference, pass, position.records)),
                pass, deliver);
  } catch (const Interrupted&) {
    rows.flush();
    throw;
  }
  rows.flush();
  writer.finish();
}

}  // namespace longstrand::pipelines
