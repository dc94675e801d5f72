#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "io/multiqc.hpp"
#include "support/temporary_directory.hpp"

namespace longstrand::io {
namespace {

using Json = nlohmann::ordered_json;

void write_every_kind(const std::string& folder) {
  write_multiqc_line_graph(folder, {"training_loss", "Training loss", "Cross entropy a base."}, "step",
                           "loss",
                           {{"train", {{1, 1.39}, {10, 1.37}, {20, std::nan("")}}}, {"valid", {{10, 1.38}}}});
  const std::array<std::string, 3> names{"Aquifex: aeolicus", "1", "#2\tx"};
  const std::array<double, 9> counts{5, 0, 1, 0, 4, 0, 0.5, 0, 3};
  write_multiqc_heatmap(folder, {"confusion", "Confusion matrix", "Rows: truth; \"columns\": prediction."},
                        names, names, counts);
  write_multiqc_table(folder, {"runs", "Runs", "One row a run."},
                      Json{{"run1", {{"accuracy", 0.987}, {"steps", 1200}, {"device", "cpu \xE9"}}}});
}

// The real program reads the files, without a complaint, and every section arrives with its values.
TEST(Multiqc, RendersEverySection) {
  if (std::system("multiqc --version > /dev/null 2>&1") != 0) {
    GTEST_SKIP() << "multiqc is not installed";
  }
  const test::TemporaryDirectory directory;
  write_every_kind(directory / "");
  const auto log = directory / "log";
  const auto command =
      "multiqc --no-ansi -o '" + (directory / "report") + "' '" + (directory / "") + "' > '" + log + "' 2>&1";
  ASSERT_EQ(std::system(command.c_str()), 0) << test::content_of(log);
  const auto messages = test::content_of(log);
  EXPECT_EQ(messages.find("rror"), std::string::npos) << messages;
  EXPECT_EQ(messages.find("WARNING"), std::string::npos) << messages;

  const auto report = Json::parse(test::content_of(directory / "report/multiqc_data/multiqc_data.json"));
  for (const char* plot : {"training_loss_plot", "confusion_plot"}) {
    EXPECT_TRUE(report.at("report_plot_data").contains(plot)) << plot;
  }
  const auto& values = report.at("report_saved_raw_data");
  EXPECT_EQ(values.at("multiqc_runs_plot").at("run1").at("accuracy"), 0.987);
  EXPECT_EQ(values.at("multiqc_training_loss_plot").at("train").at("10"), 1.37);
  EXPECT_EQ(values.at("multiqc_training_loss_plot").at("train").size(), 2);
  const auto heatmap = report.at("report_plot_data").at("confusion_plot");
  EXPECT_EQ(heatmap.at("ycats"), (Json{"Aquifex: aeolicus", "1", "#2 x"}));
  EXPECT_EQ(heatmap.at("data").at(6), (Json{0, 2, 0.5}));
}

TEST(Multiqc, AFolderThatIsNotThereIsAnError) {
  const test::TemporaryDirectory directory;
  EXPECT_THROW(write_multiqc_table(directory / "no", {"runs", "Runs", ""}, Json{{"run1", {{"steps", 1}}}}),
               std::runtime_error);
}

}  // namespace
}  // namespace longstrand::io
