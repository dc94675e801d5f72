#pragma once

#include <string>
#include <vector>

namespace longstrand::pipelines {

/// `longstrand pretrain`: trains a language model on sequences.
void pretrain(const std::vector<std::string>& arguments);

}  // namespace longstrand::pipelines
