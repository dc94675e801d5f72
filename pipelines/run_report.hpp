#pragma once

#include <string>

#include "pipelines/run_folder.hpp"

namespace longstrand::pipelines {

/// Writes NAME_loss_mqc.json, NAME_run_mqc.json and, where it was validated, NAME_accuracy_mqc.json from the
/// run's metrics.
void write_run_report(const RunFolder& run, const std::string& name);

}  // namespace longstrand::pipelines
