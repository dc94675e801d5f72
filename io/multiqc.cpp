#include "io/multiqc.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cmath>
#include <nlohmann/json.hpp>

#include "io/atomic_file.hpp"
#include "io/json_text.hpp"
#include "io/utf8.hpp"

namespace longstrand::io {
namespace {

using Json = nlohmann::ordered_json;

// The keys that every section has; MultiQC wants the plot's id to differ from the section's.
Json describe(const MultiqcSection& section, const std::string& plot_type) {
  return {{"id", section.id},
          {"section_name", section.name},
          {"description", section.description},
          {"plot_type", plot_type},
          {"pconfig", {{"id", section.id + "_plot"}, {"title", "Longstrand: " + section.name}}}};
}

void write_json(const std::string& folder, const MultiqcSection& section, const Json& content) {
  write_file(fmt::format("{}/{}_mqc.json", folder, section.id), json_text(content, 1) + '\n');
}

// In quotes, so that a class called "1" or "#2" stays a name.
std::string quoted_cell(const std::string& name) {
  auto text = to_utf8(name);
  std::replace_if(
      text.begin(), text.end(), [](char c) { return c == '\t' || c == '\n' || c == '\r'; }, ' ');
  return '"' + text + '"';
}

// MultiQC shows one decimal unless told otherwise.
Json column_headers(const Json& rows) {
  Json headers = Json::object();
  for (const auto& row : rows) {
    for (const auto& [column, value] : row.items()) {
      headers[column]["title"] = column;
      if (value.is_number()) {
        headers[column]["format"] = value.is_number_float() ? "{:,.4g}" : "{:,.0f}";
      }
    }
  }
  return headers;
}

}  // namespace

void write_multiqc_line_graph(const std::string& folder, const MultiqcSection& section,
                              const std::string& x_label, const std::string& y_label,
                              const std::map<std::string, Curve>& curves) {
  auto content = describe(section, "linegraph");
  content["pconfig"].update(Json{{"xlab", x_label}, {"ylab", y_label}});
  auto& data = content["data"] = Json::object();
  for (const auto& [name, curve] : curves) {
    auto& points = data[to_utf8(name)] = Json::object();
    for (const auto& [x, y] : curve) {
      if (std::isfinite(x) && std::isfinite(y)) {
        points[fmt::format("{}", x)] = y;
      }
    }
  }
  write_json(folder, section, content);
}

// A TSV with the configuration in comments, since MultiQC 1.14 cannot take a heatmap from JSON.
void write_multiqc_heatmap(const std::string& folder, const MultiqcSection& section,
                           std::span<const std::string> row_names, std::span<const std::string> column_names,
                           std::span<const double> values) {
  assert(values.size() == row_names.size() * column_names.size());
  std::string text;
  const auto description = describe(section, "heatmap");
  for (const auto& [key, value] : description.items()) {
    text += fmt::format("#{}: {}\n", key, json_text(value));  // JSON is YAML
  }
  for (const auto& name : column_names) {
    text += '\t' + quoted_cell(name);
  }
  text += '\n';
  auto value = values.begin();
  for (const auto& name : row_names) {
    text += quoted_cell(name);
    for (std::size_t column = 0; column < column_names.size(); ++column) {
      text += fmt::format("\t{}", *value++);
    }
    text += '\n';
  }
  write_file(fmt::format("{}/{}_mqc.tsv", folder, section.id), text);
}

void write_multiqc_table(const std::string& folder, const MultiqcSection& section, const Json& rows) {
  auto content = describe(section, "table");
  content["headers"] = column_headers(rows);
  content["data"] = rows;
  write_json(folder, section, content);
}

}  // namespace longstrand::io
