#pragma once

#include <string>
#include <vector>

namespace longstrand::pipelines {

// longstrand baseline: what k-mer frequencies alone reach on the windows of a split; a yardstick for
// classifiers.
void baseline(const std::vector<std::string>& arguments);

}  // namespace longstrand::pipelines
