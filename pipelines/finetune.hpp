#pragma once

#include <string>
#include <vector>

namespace longstrand::pipelines {

/// `longstrand finetune`: trains a classifier on labelled sequences.
void finetune(const std::vector<std::string>& arguments);

}  // namespace longstrand::pipelines
