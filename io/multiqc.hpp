#pragma once

#include <map>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace longstrand::io {

// Custom content for MultiQC (1.14 and later): each function writes one file, <folder>/<id>_mqc.json or .tsv,
// that `multiqc <folder>` shows as one section. Files are complete or absent; errors throw
// std::runtime_error. https://multiqc.info/docs/custom_content
struct MultiqcSection {
  std::string id;  // [a-z0-9_]+, unique in a report
  std::string name;
  std::string description;  // one sentence, shown under the name
};

// One point of a curve (x, y); points that are not finite are left out.
using Curve = std::vector<std::pair<double, double>>;

void write_multiqc_line_graph(const std::string& folder, const MultiqcSection& section,
                              const std::string& x_label, const std::string& y_label,
                              const std::map<std::string, Curve>& curves);

// values: [rows, columns], row-major.
void write_multiqc_heatmap(const std::string& folder, const MultiqcSection& section,
                           std::span<const std::string> row_names, std::span<const std::string> column_names,
                           std::span<const double> values);

// rows: {"row": {"column": number or text, ...}, ...}, shown in this order.
void write_multiqc_table(const std::string& folder, const MultiqcSection& section,
                         const nlohmann::ordered_json& rows);

}  // namespace longstrand::io
