#include "pipelines/score.hpp"

#include <limits>
#include <numbers>

#include "io/tsv_writer.hpp"
#include "pipelines/record_options.hpp"
#include "pipelines/record_pass.hpp"

namespace longstrand::pipelines {
namespace {

const std::vector<std::string> kColumns = {"record", "start",          "end",
                                           "bases",  "log_likelihood", "bits_per_base"};

double bits_per_base(double log_likelihood, std::int64_t bases) {
  if (bases == 0) return std::numeric_limits<double>::quiet_NaN();
  return -log_likelihood / std::numbers::ln2 / static_cast<double>(bases);
}

}  // namespace

void score(const std::vector<std::string>& arguments) {
  RecordOptions records;
  std::string output;
  CommandLine line(
      "score", "-m MODEL INPUT... [-o OUT.tsv]",
      "Writes how probable the model finds each record or window: a table with the columns\n"
      "record, start, end (0-based, half-open), bases (the A, C, G and T after the first base),\n"
      "log_likelihood (of these, in nats) and bits_per_base.");
  records.add_to(line);
  line.group("Output").add_options()("output,o", po::value(&output)->value_name("OUT.tsv"),
                                     "where the table goes; standard output if not given");
  line.example(
      "longstrand score -m run/model --window 4096 data/genomes/Aquifex_aeolicus_VF5.fa.gz -o scores.tsv");
  if (!line.parse(arguments)) return;
  records.check(line);

  const Model model = Model::load(records.model);
  const ResolvedExecution execution = line.execution(/*small_differences=*/true);
  Inference inference(model, execution.options, {.readout = Readout::log_likelihood});
  io::TsvWriter table(output, kColumns);
  const RecordPass pass{.label = "scoring"};
  run_records(inference, records.open(line.common(), chunks_for(inference, pass)), pass,
              for_each_record([&](const ChunkResult& result, std::int64_t lane) {
                const io::RecordInfo& record = record_of(result, lane);
                const double log_likelihood = result.log_likelihood[lane];
                const std::int64_t bases = result.scored_bases[lane];
                table.cell(record.name).cell(record.begin).cell(record.begin + record.length).cell(bases);
                table.cell(log_likelihood).cell(bits_per_base(log_likelihood, bases)).end_row();
              }));
  table.commit();
}

}  // namespace longstrand::pipelines
