#pragma once

#include <string>
#include <vector>

namespace longstrand::pipelines {

/// `longstrand inspect`: what is in sequence files, models, runs and embeddings.
void inspect(const std::vector<std::string>& arguments);

}  // namespace longstrand::pipelines
