"""Factory strings that would end the process, or search nothing, are refused before faiss sees them."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest

from skad._bank import check_index
from skad._bank.factory import check_factory
from skad._bank.search import FaissSearch

faiss = pytest.importorskip("faiss")

ENDING = [
    *("NSG16,Flat", "NSG32", "IVF4_NSG16,Flat", "IVF4(NSG16),Flat", "PQ4x4,Refine(NSG16)"),
    *("NNDescent32,Flat", "HNSW0", "HNSW0,Flat", "HNSW1", "IVF4_HNSW1,Flat", "IVF4(HNSW0),Flat"),
    *("PQ8x0", "OPQ4_0,Flat", "RR0,Flat", "PQ4x4fs_0", "RQ0x4", "RQ2x0", "HNSW8_SQ0", "IVF0,Flat"),
    *("PCA0,Flat", "LSH0", "IMI2x0,Flat", "ZnLattice2x3_4", "IDMap,Flat", "Flat,IDMap2", "PQ00"),
]
SEARCHING_NOTHING = [
    *("IVF4,Flat;nprobe=0", "IVF4,Flat;nprobe=-1", "IVF4,Flat;nprobe=1.5", "IVF4,Flat;nprobe=4abc"),
    *("IVF4,Flat;nprobe=1e300", "IVF4,Flat;nprobe=nan", "IVF4,Flat;nprobe=", "IVF4,Flat;nprobe"),
    *("HNSW16;efSearch=0", "HNSW16;efSearch=-5", "HNSW16;efSearch=inf", "HNSW16;efConstruction=0"),
    *("HNSW16;efSearch=16,efConstruction=-1", "IVF4_HNSW8,Flat;quantizer_efSearch=0"),
    *("PQ4x4,RFlat;k_factor_rf=0", "PQ4x4,RFlat;k_factor_rf=0.5", "IVF4,Flat;max_codes=-1"),
]
GOOD = [
    *(
        "Flat",
        "HNSW",
        "HNSW2",
        "HNSW16,SQ8",
        "HNSW8_PQ4x4",
        "HNSW10",
        "IVF10,Flat",
        "IVF4_HNSW32,Flat",
    ),
    *(
        "IVF4,Flat;nprobe=4",
        "IVF4,PQ4x4",
        "IVF4(IVF2,Flat),Flat",
        "PQ4x4fs",
        "PQ4x4,RFlat",
        "RR8,SQ4",
    ),
    *("PQ4x4np,RFlat;k_factor_rf=1.5", "PCA8,Flat", "OPQ4_8,SQ8", "SQ8", "SQ6", "SQ4", "SQfp16"),
    *("L2norm,Flat", "IMI2x2,Flat", "LSHrt", "HNSW16;efSearch=64,efConstruction=40", "PCA10,SQ8"),
    *(
        "IVF4,SQbf16;max_codes=0",
        "IVF4_HNSW8,Flat;nprobe=2,quantizer_efSearch=8",
        "ITQ8,LSH",
        "Flat;",
    ),
]


@pytest.mark.parametrize("index", ENDING)
def test_what_ends_the_process_or_never_works_is_refused(index):
    with pytest.raises(ValueError, match=r"index='"):
        check_index(index, 24)
    with pytest.raises(ValueError, match=r"index='"):
        FaissSearch(np.zeros((40, 24), np.float32), index)


@pytest.mark.parametrize("index", SEARCHING_NOTHING)
def test_what_searches_nothing_is_refused(index):
    with pytest.raises(ValueError, match=r"index='.*must be a (whole )?number of [01] at least"):
        check_index(index, 24)


@pytest.mark.parametrize("index", GOOD)
def test_what_works_is_let_through(index):
    check_factory(index)
    check_index(index, 24, 300)
    vectors = np.random.default_rng(0).normal(3, 1, (300, 24)).astype(np.float32)
    assert FaissSearch(vectors, index).candidates(vectors, 1).shape == (300, 1)


@pytest.mark.parametrize(
    ("index", "fewest"),
    [
        *(("Flat", 1), ("HNSW16", 1), ("IVF64,Flat", 64), ("IVF4,PQ4x5np", 32), ("PQ4np", 256)),
        *(("PCA8,Flat", 8), ("OPQ4,SQ8", 256), ("IVF64_HNSW8,SQ8", 64), ("HNSW8,PQ4x4", 16)),
        *(
            ("PQ4x6np,RFlat", 64),
            ("PCA12,IVF4,Flat", 12),
            ("IMI2x3,Flat", 8),
            ("IVF4(PQ4x2),Flat", 4),
        ),
    ],
)
def test_too_few_vectors_are_refused_before_work_starts(index, fewest):
    check_index(index, 24, fewest)
    vectors = np.random.default_rng(0).normal(3, 1, (fewest, 24)).astype(np.float32)
    FaissSearch(vectors, index)
    if fewest > 1:
        with pytest.raises(ValueError, match=f"{fewest} vectors at least, and the bank holds"):
            check_index(index, 24, fewest - 1)
        with pytest.raises(ValueError, match="cannot build"):
            FaissSearch(vectors[:-1], index)


def test_no_string_that_is_let_through_ends_the_process():
    """On banks of every size, of different vectors and of equal ones; in a process of its own."""
    code = f"""
    import numpy as np
    from skad._bank.search import FaissSearch
    for index in {[index for index in GOOD if "OPQ" not in index]!r}:
        for n in (5, 101):
            some = np.random.default_rng(n).normal(3, 1, (n, 24)).astype(np.float32)
            for vectors in (some, np.repeat(some[: 1 + n // 9], 9, 0)[:n]):
                try:
                    FaissSearch(vectors, index).candidates(vectors, min(n, 9))
                except ValueError:
                    pass
    print("alive")
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert result.stdout.strip() == "alive", result.stderr


@pytest.mark.parametrize("index", ["IVF4,Flat;max_codes=20", "IVF4,PQ4x4;nprobe=4,max_codes=1"])
def test_what_passes_over_the_nearest_is_refused(index):
    with pytest.raises(ValueError, match=r"index='.*max_codes passes over the nearest vectors"):
        check_index(index, 24)


def test_a_hamming_threshold_is_refused():
    with pytest.raises(ValueError, match=r"index='PQ4x8;ht=3': ht passes over the nearest"):
        check_index("PQ4x8;ht=3", 24)


@pytest.mark.parametrize(
    ("index", "longest"),
    [
        *(("OPQ4_28,PQ4x4", 24), ("OPQ8_1000,PQ8x4", 24), ("OPQ2_26,IVF4,Flat", 24)),
        *(("PCA25,Flat", 24), ("ITQ48,LSH", 24), ("PCAR96,SQ8", 24)),
        *(("Pad97,Flat", 96), ("RR1000,SQ8", 96), ("Pad100000000,IVF4,Flat", 96)),
    ],
)
def test_longer_vectors_than_a_transform_can_give_are_refused(index, longest):
    with pytest.raises(ValueError, match=f"of those of length 24; {longest} is the most"):
        check_index(index, 24)
    with pytest.raises(ValueError, match=r"index='"):
        FaissSearch(np.zeros((40, 24), np.float32), index)


@pytest.mark.parametrize("index", ["Pad32,Flat", "RR48,SQ8", "Pad96,PQ4x4"])
def test_some_widening_works(index):
    check_index(index, 24, 40)
    vectors = np.random.default_rng(0).normal(3, 1, (40, 24)).astype(np.float32)
    assert FaissSearch(vectors, index).candidates(vectors, 2).shape == (40, 2)


@pytest.mark.parametrize("index", ["HNSW513", "IVF4_HNSW2000000,Flat", "HNSW1000,SQ8"])
def test_more_links_than_memory_holds_are_refused(index):
    with pytest.raises(ValueError, match="512 links per vector at most"):
        check_index(index, 24)


@pytest.mark.parametrize("setting", ["efSearch", "efConstruction", "quantizer_efSearch"])
def test_more_room_than_the_bank_needs_is_refused(setting):
    index = f"IVF4_HNSW8,Flat;{setting}=" if "_" in setting else f"HNSW8;{setting}="
    check_index(index + "1024", 24, 40)
    check_index(index + "2000", 24, 2000)
    check_index(index + "2000", 24)
    with pytest.raises(
        ValueError, match=f"{setting} must be 1024 at most for a bank of 40 vectors"
    ):
        check_index(index + "2000", 24, 40)
    with pytest.raises(
        ValueError, match=f"{setting} must be 1024 at most for a bank of 40 vectors"
    ):
        FaissSearch(np.zeros((40, 24), np.float32), index + "2000000000")


def test_a_factor_of_refining_has_the_same_bound():
    with pytest.raises(ValueError, match=r"k_factor_rf must be 1024 at most for a bank of 40"):
        check_index("PQ4x4,RFlat;k_factor_rf=1e9", 24, 40)


def test_a_lack_of_memory_names_the_index(monkeypatch):
    vectors = np.random.default_rng(0).normal(3, 1, (40, 24)).astype(np.float32)
    search = FaissSearch(vectors, "Flat")

    def greedy(*args):
        raise MemoryError("std::bad_alloc")

    monkeypatch.setattr(search, "_index", type("Index", (), {"search": greedy})())
    with pytest.raises(ValueError, match="cannot search index='Flat'"):
        search.candidates(vectors, 1)
    monkeypatch.setattr(faiss.IndexFlat, "add", greedy)
    with pytest.raises(ValueError, match="cannot build index='Flat' from 40 vectors"):
        FaissSearch(vectors, "Flat")


@pytest.mark.parametrize(
    "index",
    ["NSG32," + "Flat" * 5000, "IVF64,Flat;" + "x" * 9000 + "=-1", "HNSW999," + "Flat" * 5000],
)
def test_messages_do_not_quote_all_of_a_long_string(index):
    with pytest.raises(ValueError, match=r"^index=") as info:
        check_factory(index)
    assert len(str(info.value)) < 450
