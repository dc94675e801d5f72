#include "pipelines/score.hpp"

#include <cmath>
#include <limits>
#include <numbers>

#include "io/tsv_writer.hpp"
#include "pipelines/logging.hpp"
#include "pipelines/record_options.hpp"
#include "pipelines/record_pass.hpp"
#include "src/masking.hpp"

namespace longstrand::pipelines {
namespace {

const std::vector<std::string> kColumns = {"record", "start",          "end",
                                           "bases",  "log_likelihood", "bits_per_base"};

double bits_per_base(double log_likelihood, std::int64_t bases) {
  if (bases == 0) return std::numeric_limits<double>::quiet_NaN();
  return -log_likelihood / std::numbers::ln2 / static_cast<double>(bases);
}

// Rounds in which at most this share of the bases is masked at once, and in all of them every base.
std::int64_t rounds_for(double mask_fraction) {
  constexpr double kRounding = 1e-9;  // of 1 / 0.1, say
  return static_cast<std::int64_t>(std::ceil(1 / mask_fraction - kRounding));
}

// One row a record, whose copies come one after the other.
auto one_row_a_record(io::TsvWriter& table, std::int64_t copies) {
  return for_each_record([&table, copies, copy = std::int64_t{0}, log_likelihood = 0.0,
                          bases = std::int64_t{0}](const ChunkResult& result, std::int64_t lane) mutable {
    log_likelihood += result.log_likelihood[lane];
    bases += result.scored_bases[lane];
    if (++copy < copies) return;
    const io::RecordInfo& record = record_of(result, lane);
    table.cell(record.name).cell(record.begin).cell(record.begin + record.length).cell(bases);
    table.cell(log_likelihood).cell(bits_per_base(log_likelihood, bases)).end_row();
    copy = bases = 0;
    log_likelihood = 0;
  });
}

}  // namespace

void score(const std::vector<std::string>& arguments) {
  RecordOptions records;
  std::string output;
  double mask_fraction = 0;
  CommandLine line(
      "score", "-m MODEL INPUT... [-o OUT.tsv]",
      "Writes how probable the model finds each record or window: a table with the columns\n"
      "record, start, end (0-based, half-open), bases (the A, C, G and T after the first base),\n"
      "log_likelihood (of these, in nats) and bits_per_base. Of a bidirectional model bases are all A,\n"
      "C, G and T, and log_likelihood is a pseudo-log-likelihood: that of each base where it is masked.");
  records.add_to(line);
  line.group("Model").add_options()(
      "mask-fraction",
      with_default(mask_fraction, MaskRule{}.share)
          ->value_name("F")
          ->notifier(in_range<double>("mask-fraction", 0.001, 1)),
      "bidirectional models: share of the bases that is masked at once; each is masked in one of 1/F rounds");
  line.group("Output").add_options()("output,o", po::value(&output)->value_name("OUT.tsv"),
                                     "where the table goes; standard output if not given");
  line.example(
      "longstrand score -m run/model --window 4096 data/genomes/Aquifex_aeolicus_VF5.fa.gz -o scores.tsv");
  if (!line.parse(arguments)) return;
  records.check(line);

  const Model model = Model::load(records.model);
  const bool masks = model.config().bidirectional();
  if (!masks && line.given("mask-fraction")) {
    throw UsageError("--mask-fraction: this model is causal, it predicts every base from those before it");
  }
  const ResolvedExecution execution = line.execution(/*small_differences=*/true);
  Inference inference(model, execution.options,
                      {.readout = masks ? Readout::masked_log_likelihood : Readout::log_likelihood});
  RecordPass pass{.label = "scoring"};
  if (masks) {
    pass.copies.mask_rounds = rounds_for(mask_fraction);
    spdlog::info("pseudo-log-likelihood: every base is masked once, in {} rounds over the record",
                 pass.copies.mask_rounds);
  }
  io::TsvWriter table(output, kColumns);
  run_records(inference, records.open(line.common(), chunks_for(inference, pass)), pass,
              one_row_a_record(table, pass.copies.copies()));
  table.commit();
}

}  // namespace longstrand::pipelines
