"""What only a GPU can show: ``make test-gpu`` on a machine that has one."""

import pickle
import threading
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import make_detector, make_reconpatch, make_recontrast

import skad._torch.cuda_graphs
from skad._bank import MemoryBank, greedy_k_center
from skad._features import load_backbone
from skad._features.embedding import ConcatEmbedding
from skad._learning import ReConPatchSettings, learn_embedding
from skad._learning.linear_embedding import LinearPair, _Training
from skad._torch.cuda_graphs import CUDAGraphed
from skad._torch.fusing import FusedConvolution

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]
GPU, CPU = torch.device("cuda"), torch.device("cpu")
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture(autouse=True)
def float32(monkeypatch):
    """Convolutions whose inputs are not rounded to ten bits (TF32), which is torch's default."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@contextmanager
def no_waiting():
    """Whoever waits for the device gets an error."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


class TestCUDAGraphed:
    def test_calls_of_several_shapes(self):
        recorded = CUDAGraphed(lambda x, y: (x @ y, x.sum()), GPU)
        generator = torch.Generator().manual_seed(0)
        kept = []
        for i in range(24):
            x = torch.randn(1 + i % 6, 8, generator=generator)
            y = torch.randn(8, 3, generator=generator)
            if i % 2:
                x, y = x.to(GPU), y.to(GPU)
            kept.append((recorded(x, y), x, y))
        assert len(recorded._recordings) == 4
        for (product, total), x, y in kept:
            torch.testing.assert_close(product.cpu(), x.cpu() @ y.cpu(), rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(total.cpu(), x.cpu().sum(), rtol=1e-5, atol=1e-5)

    def test_every_call_takes_one_step(self):
        count = torch.zeros((), device=GPU)
        recorded = CUDAGraphed(lambda x: (count.add_(x.sum()).clone(),), GPU)
        found = [recorded(torch.ones(2))[0].item() for _ in range(7)]
        assert found == [2, 4, 6, 8, 10, 12, 14]

    def test_what_asks_the_device_is_called_every_time(self):
        calls = []

        def branch(x):
            calls.append(x.sum().item())
            return (x * calls[-1],)

        recorded = CUDAGraphed(branch, GPU)
        for i in range(6):
            (found,) = recorded(torch.full((3,), float(i)))
            assert found.tolist() == [3.0 * i * i] * 3
        assert calls == [0, 3, 6, 9, 12, 15]

    def test_errors_are_the_callers(self):
        recorded = CUDAGraphed(lambda x: (x @ torch.ones(3, device=GPU),), GPU)
        for _ in range(5):
            with pytest.raises(RuntimeError, match="size mismatch"):
                recorded(torch.ones(2, 4))
        assert recorded(torch.ones(2, 3))[0].tolist() == [3, 3]

    def test_threads(self):
        recorded = CUDAGraphed(lambda x: (x.sum(1),), GPU)
        wrong = []

        def work(value):
            for _ in range(200):
                (found,) = recorded(torch.full((4, 64), float(value)))
                if found.tolist() != [64.0 * value] * 4:
                    wrong.append(value)

        threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []

    def test_host_does_not_wait(self):
        recorded = CUDAGraphed(lambda x: (x * 2,), GPU)
        with no_waiting():
            for _ in range(5):
                recorded(torch.ones(1000))


class TestNetwork:
    @pytest.mark.parametrize("name", ["resnet18", "skad_nano"])
    def test_fused_kernels_compute_the_same(self, name):
        weights = "pretrained" if name == "skad_nano" else None
        expected = load_backbone(name, weights, (2, 3), CPU)
        fused = load_backbone(name, weights, (2, 3), GPU, fuse=True)
        pixels = torch.randint(0, 255, (3, 96, 96, 3), dtype=torch.uint8)
        with torch.inference_mode():
            for a, b in zip(fused(pixels.to(GPU)), expected(pixels), strict=True):
                torch.testing.assert_close(a.cpu(), b, rtol=0, atol=2e-3 * float(b.abs().max()))
            with torch.autocast("cuda", dtype=torch.bfloat16):
                for a, b in zip(fused(pixels.to(GPU)), expected(pixels), strict=True):
                    assert a.dtype == torch.bfloat16
                    off = (a.cpu().float() - b).abs().max() / b.abs().max()
                    assert off < 0.03
        modules = [m for m in fused.modules() if isinstance(m, FusedConvolution) and m.relu]
        assert modules
        assert all((torch.bfloat16, False) not in m._missing for m in modules)

    @pytest.mark.parametrize("size", [1, 3, 5])
    def test_neighbourhoods_are_averaged_in_float32(self, size):
        layer = torch.randn(8, 512, 28, 28, device=GPU).to(memory_format=torch.channels_last)
        found = ConcatEmbedding(size).pool([layer])[0]
        expected = F.avg_pool2d(layer.double(), size, 1, size // 2).permute(0, 2, 3, 1)
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-6)


PARAMS = [
    {},
    {"n_neighbors": 3, "b": 5, "image_score": "patch"},
    {"distance": "squared", "n_neighbors": 2, "image_score": 0.1},
    {"geometry": "pad", "aggregation": "adaptive"},
    {"coreset_size": 0.9, "image_size": 64, "image_score": "patch"},
    {"index": "Flat"},
]


@pytest.mark.parametrize("params", PARAMS)
@pytest.mark.parametrize("make", [make_detector, make_reconpatch])
class TestPatchDetectors:
    def test_scores_and_maps_are_the_cpus(self, good, defective, make, params):
        if "index" in params:
            pytest.importorskip("faiss")
        det = make(device="cpu", **params).fit(good)
        expected, scores = det.predict_heatmap(defective, return_scores=True)
        of_good = det.score_samples(good)
        det.set_params(device="cuda")
        for size in (1, 3, 8):
            det.set_params(batch_size=size)
            for _ in range(2):
                np.testing.assert_allclose(det.score_samples(good), of_good, **CLOSE)
                np.testing.assert_allclose(det.score_samples(defective), scores, **CLOSE)
        maps = det.predict_heatmap(defective)
        np.testing.assert_allclose(maps, expected, rtol=2e-3, atol=1e-3 * expected.max())

    def test_fit_here_score_there(self, good, defective, make, params):
        if "index" in params:
            pytest.importorskip("faiss")
        det = make(device="cuda", **params).fit(good)
        scores = det.score_samples(defective)
        assert (det.predict(defective) == -1).all()
        there = pickle.loads(pickle.dumps(det)).set_params(device="cpu")
        np.testing.assert_allclose(there.score_samples(defective), scores, **CLOSE)
        assert there.offset_ == det.offset_


class TestPatchCore:
    def test_bfloat16(self, good, defective):
        det = make_detector(device="cuda", precision="bfloat16").fit(good)
        assert (det.predict(defective) == -1).all()
        assert det.score_samples(defective).max() < det.score_samples(good).min()

    def test_images_of_all_sizes(self, good, defective):
        det = make_detector(device="cpu", geometry="pad", image_size=64).fit(good)
        images = [*good[:3], *(image[:, :30] for image in good[:3]), good[0][:20]]
        expected = det.score_samples(images)
        found = det.set_params(device="cuda", batch_size=4).score_samples(images)
        np.testing.assert_allclose(found, expected, **CLOSE)

    def test_more_images_later(self, good):
        det = make_detector(device="cuda", coreset_size=30).partial_fit(good[:6])
        det.partial_fit(good[6:])
        assert det.n_images_ == 12
        assert np.isfinite(det.score_samples(good)).all()

    def test_tf32(self):
        """By torch's default: a difference that images in their real size hardly show."""
        rng = np.random.default_rng(0)
        wave = 110 + 50 * np.sin(np.arange(224) / 5)[:, None]
        good = np.clip(wave + rng.normal(0, 20, (12, 224, 224, 3)), 0, 255).astype(np.uint8)
        defective = good[8:].copy()
        defective[:, 50:90, 100:140] = 250
        det = make_detector(image_size=224, device="cpu", coreset_size=0.01).fit(good[:8])
        expected = det.score_samples(defective)
        det.set_params(device="cuda")
        np.testing.assert_allclose(det.score_samples(defective), expected, **CLOSE)
        torch.backends.cudnn.allow_tf32 = True
        for _ in range(4):
            found = det.score_samples(defective)
        assert (found != expected).any()
        np.testing.assert_allclose(found, expected, rtol=2e-3)

    def test_two_precisions_of_one_backbone(self, good, defective):
        """What one of them has recorded stays when the other comes."""
        dets = [
            make_detector(device="cuda", precision=precision).fit(good)
            for precision in ("bfloat16", "float32")
        ]
        expected = [det.score_samples(defective) for det in dets]
        for _ in range(4):
            for det, scores in zip(dets, expected, strict=True):
                np.testing.assert_allclose(det.score_samples(defective), scores, rtol=1e-5)

    def test_threads(self, good, defective):
        det = make_detector(device="cuda", batch_size=2).fit(good)
        expected = det.score_samples(defective)
        found = [None] * 4

        def work(i):
            for _ in range(5):
                found[i] = det.score_samples(defective)

        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for scores in found:
            np.testing.assert_allclose(scores, expected, rtol=1e-5)


class TestBank:
    @pytest.mark.parametrize("k", [1, 3])
    def test_bounds_lie_above_distances(self, k):
        generator = torch.Generator().manual_seed(0)
        vectors = torch.relu(torch.randn(3000, 1536, generator=generator) + 0.5)
        bank = MemoryBank(vectors.numpy(), np.zeros(3000))
        queries = vectors[:2000].reshape(4, 500, 1536)
        queries = queries + 0.7 * torch.randn(queries.shape, generator=generator)
        distances, _ = bank.search(queries, k)
        bounds = bank.bounds_together(queries.to(GPU), k).cpu().numpy()
        assert (bounds >= distances).all()
        assert (bounds <= 1.05 * distances).all()

    def test_coreset_of_the_cpu(self):
        X = torch.randn(3000, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        expected = greedy_k_center(X, 300)
        np.testing.assert_array_equal(greedy_k_center(X.to(GPU), 300), expected)


class TestReConPatch:
    settings = ReConPatchSettings(
        embedding_dim=24, projection_dim=16, epochs=9, lr=1e-4, train_batch_size=64
    )
    features = np.random.default_rng(0).normal(size=(400, 32)).astype(np.float32)

    def learn(self, device, **changed):
        settings = replace(self.settings, **changed)
        return learn_embedding(self.features, settings, torch.Generator().manual_seed(0), device)

    def test_learns_what_the_cpu_learns(self):
        here, there = self.learn("cuda"), self.learn("cpu")
        np.testing.assert_allclose(here.losses, there.losses, rtol=1e-4)
        np.testing.assert_allclose(here.weight, there.weight, atol=1e-3)

    def test_recorded_steps_are_steps(self, monkeypatch):
        found = self.learn("cuda")
        monkeypatch.setattr(skad._torch.cuda_graphs, "_WARMUP_CALLS", 10**9)
        plain = self.learn("cuda")
        np.testing.assert_allclose(found.losses, plain.losses, rtol=1e-5)
        np.testing.assert_allclose(found.weight, plain.weight, atol=1e-5)

    def test_no_step_waits_for_the_device(self):
        generator = torch.Generator().manual_seed(0)
        pair = LinearPair(32, self.settings, generator).to(GPU)
        training = _Training(pair, self.features, self.settings, generator)
        assert training.features.is_cuda
        patches = training.features[:64]
        training.step(patches)
        with no_waiting():
            for _ in range(5):
                training.step(patches)
        assert training._recorded_step._recordings


class TestReContrast:
    @pytest.mark.parametrize(
        "params", [{"bn": "train"}, {"bn": "stable"}, {"train_precision": "float32"}]
    )
    def test_recorded_steps_are_steps(self, good, defective, monkeypatch, params):
        monkeypatch.setattr("skad._learning.recontrast_training.RESET_EVERY", 7)
        params = {"device": "cuda", "image_size": 64, "max_iter": 15, **params}
        found = make_recontrast(**params).fit(good)
        monkeypatch.setattr(skad._torch.cuda_graphs, "_WARMUP_CALLS", 10**9)
        plain = make_recontrast(**params).fit(good)
        np.testing.assert_allclose(found.loss_curve_[:3], plain.loss_curve_[:3], rtol=1e-3)
        # Gradients of convolutions are summed in no fixed order.
        np.testing.assert_allclose(found.loss_curve_, plain.loss_curve_, rtol=0.05)
        np.testing.assert_allclose(
            found.score_samples(defective), plain.score_samples(defective), rtol=0.1
        )

    def test_scores_are_the_cpus(self, good, defective):
        det = make_recontrast(device="cuda", image_size=64).fit(good)
        for size in (1, 3):
            det.set_params(batch_size=size)
            for _ in range(2):
                scores = det.score_samples(defective)
        there = pickle.loads(pickle.dumps(det)).set_params(device="cpu")
        np.testing.assert_allclose(there.score_samples(defective), scores, rtol=5e-3)

    def test_going_on_after_a_stop(self, good):
        params = {"device": "cuda", "image_size": 64, "warm_start": True}
        det = make_recontrast(max_iter=6, **params).fit(good)
        det.set_params(max_iter=12).fit(good)
        whole = make_recontrast(max_iter=12, **params).fit(good)
        assert det.n_iter_ == 12
        np.testing.assert_allclose(det.loss_curve_[:8], whole.loss_curve_[:8], rtol=0.2)

    def test_no_step_waits_for_the_device(self):
        started = make_recontrast(device="cuda", image_size=64)._start(None)
        pixels = torch.randint(0, 255, (4, 64, 64, 3), dtype=torch.uint8).to(GPU)
        started.step(pixels)
        with no_waiting():
            for _ in range(5):
                started.step(pixels)
        assert started._recorded_step._recordings
