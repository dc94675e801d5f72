#pragma once

#include <string>
#include <vector>

namespace longstrand::pipelines {

// longstrand embed: embeddings of records, windows or single bases, as an .h5ad file.
void embed(const std::vector<std::string>& arguments);

}  // namespace longstrand::pipelines
