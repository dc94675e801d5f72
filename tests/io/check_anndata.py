"""Opens an .h5ad as a user would, with h5py and with anndata, and compares it with what the test wrote.

usage: check_anndata.py FILE pooled|tokens N_OBS N_VAR      exit status 77: h5py or anndata is not installed

The rows are those of tests/io/embedding_rows.hpp: X[i, j] = i + j / 1024; pooled row i is window i % 1000 of record
i // 1000; token row i is position i % 1000 of record i // 1000.
"""

import sys

try:
    import anndata
    import h5py
    import numpy
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)


def expected_x(n_obs, n_var):
    return (numpy.arange(n_obs)[:, None] + numpy.arange(n_var)[None, :] / 1024).astype(numpy.float32)


def check_pooled(obs, n_obs):
    rows = numpy.arange(n_obs)
    starts = rows % 1000 * 100
    assert list(obs.columns) == ["record", "start", "end", "strand", "length"], obs.columns
    assert list(obs["record"]) == [f"record {i // 1000}" for i in rows]
    assert (obs["start"] == starts).all() and (obs["end"] == starts + 150).all()
    assert (obs["length"] == 150 - rows % 7).all()
    assert obs["strand"].dtype == "category" and list(obs["strand"]) == ["+-."[i % 3] for i in rows]
    assert list(obs.index) == [f"record {i // 1000}:{s + 1}-{s + 150}" for i, s in zip(rows, starts)]


def check_tokens(obs, n_obs):
    rows = numpy.arange(n_obs)
    assert list(obs.columns) == ["record", "position"], obs.columns
    assert obs["record"].dtype == "category" and list(obs["record"]) == [f"record {i // 1000}" for i in rows]
    assert (obs["position"] == rows % 1000).all()
    assert list(obs.index) == [str(i) for i in rows]


def main():
    path, kind, n_obs, n_var = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    with h5py.File(path, "r") as file:
        assert file["X"].dtype == numpy.float32 and file["X"].shape == (n_obs, n_var), file["X"]
        assert dict(file.attrs) == {"encoding-type": "anndata", "encoding-version": "0.1.0"}, dict(file.attrs)
        assert (file["X"][:] == expected_x(n_obs, n_var)).all()
    data = anndata.read_h5ad(path)
    assert data.shape == (n_obs, n_var)
    assert (data.X == expected_x(n_obs, n_var)).all()
    assert data.obs_names.is_unique
    assert list(data.var_names) == [f"dim_{j}" for j in range(n_var)]
    (check_pooled if kind == "pooled" else check_tokens)(data.obs, n_obs)
    assert data.uns["model"] == "sha256:abc", data.uns
    assert data.uns["seed"] == 42 and data.uns["learning_rate"] == 0.5, data.uns
    if n_obs > 0:
        backed = anndata.read_h5ad(path, backed="r")
        assert (backed.X[n_obs - 1 : n_obs] == expected_x(n_obs, n_var)[-1:]).all()
        assert data[data.obs_names[: n_obs // 2]].copy().n_obs == n_obs // 2


main()
