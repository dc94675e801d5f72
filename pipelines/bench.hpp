#pragma once

#include <string>
#include <vector>

namespace longstrand::pipelines {

// longstrand bench: tokens a second and peak memory, on a random model and made-up DNA; one JSON object a
// case.
void bench(const std::vector<std::string>& arguments);

}  // namespace longstrand::pipelines
