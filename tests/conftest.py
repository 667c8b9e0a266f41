import gc
import os
import shutil
import tempfile
from pathlib import Path

# Read when the libraries are imported, so these come first.
_HF_HOME = tempfile.mkdtemp(prefix="recross-tests-")
os.environ.update(HF_HOME=_HF_HOME, HF_HUB_OFFLINE="1", HF_EVALUATE_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
os.environ.update(CUDA_VISIBLE_DEVICES="")  # the expectations are those of a CPU
os.environ.update(
    OMP_NUM_THREADS="1"
)  # the workers share the cores, and a process with more threads cannot be forked safely
for _name in ("HF_DATASETS_CACHE", "HF_HUB_CACHE", "HF_MODULES_CACHE", "HF_EVALUATE_CACHE", "HF_METRICS_CACHE"):
    os.environ.pop(_name, None)

# The process that shares the tests out reads this file, too, and waits for what it imports: the fixtures import the rest.
import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402
from loopback_hub import Client, Clients, Hub, LoopbackHub, client_environment  # noqa: E402

settings.register_profile("recross", deadline=None, max_examples=50, derandomize=True, database=None)
settings.load_profile("recross")


def pytest_unconfigure(config):
    shutil.rmtree(_HF_HOME, ignore_errors=True)


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Imports all tests, and with them the stack, without looking for garbage in between: there is none to speak of."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="module", autouse=True)
def quick_collection():
    """Spares the garbage collector what is there before a module: each training collects, half a second over all that is imported."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def promptsource():
    """The folder of PromptSource's templates."""
    from recross_hf.mixture.template_files import promptsource_folder

    try:
        return promptsource_folder()
    except ModuleNotFoundError as error:
        pytest.skip(f"{error}")


@pytest.fixture(scope="session")
def real_data():
    """The ReCross authors' examples as parquet, `upstream/TASK/train.parquet` and so on: they are no part of this repository."""
    folder = Path(os.environ.get("RECROSS_DATA", Path(__file__).parents[2] / "shared" / "recross-data"))
    if not folder.is_dir():
        pytest.skip("RECROSS_DATA names no folder of the authors' examples")
    return folder


@pytest.fixture(scope="session")
def tokenizer():
    import tiny

    return tiny.tokenizer()


@pytest.fixture(scope="session")
def bart(tokenizer):
    """Shared by all tests: those that change a model copy it first."""
    import tiny

    return tiny.bart(tokenizer)


@pytest.fixture(scope="session")
def t5(tokenizer):
    import tiny

    return tiny.t5(tokenizer)


@pytest.fixture(scope="session")
def encoder_decoder(tokenizer):
    import tiny

    return tiny.encoder_decoder(tokenizer)


@pytest.fixture(scope="session", params=["bart", "t5", "encoder_decoder"])
def any_model(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def encoder(bart, tokenizer):
    from recross_hf import MeanPooledEncoder

    return MeanPooledEncoder(bart, tokenizer)


@pytest.fixture(scope="session")
def pair_tokenizer():
    import tiny

    return tiny.pair_tokenizer()


@pytest.fixture(scope="session")
def cross_encoder(pair_tokenizer):
    import tiny

    return tiny.cross_encoder(pair_tokenizer)


@pytest.fixture(scope="session")
def examples():
    import tiny

    return tiny.examples()


@pytest.fixture(scope="session")
def index(examples, encoder, tmp_path_factory):
    """A flat L2 index of the 48 tiny examples; not to be changed."""
    from recross_hf import UpstreamIndex

    return UpstreamIndex.build(examples, encoder, tmp_path_factory.mktemp("index"))


@pytest.fixture(scope="session")
def queries():
    import tiny

    return tiny.queries()


@pytest.fixture(scope="session")
def answering_bart(tokenizer, examples, tmp_path_factory):
    """The tiny BART after 60 steps on the tiny examples: it answers in words, some of them right."""
    import tiny

    from recross_hf import ExampleTrainer, ExampleTrainingArguments

    model = tiny.bart(tokenizer, dropout=0.0)
    args = ExampleTrainingArguments(
        output_dir=str(tmp_path_factory.mktemp("answering")),
        use_cpu=True,
        max_steps=60,
        learning_rate=5e-3,
        per_device_train_batch_size=16,
        save_strategy="no",
        disable_tqdm=True,
    )
    ExampleTrainer(model, args, train_dataset=examples, processing_class=tokenizer).train()
    return model.eval()


@pytest.fixture(scope="module")
def pipeline(answering_bart, tokenizer, examples, tmp_path_factory):
    """A pipeline of the model that answers, in a folder of its own; modules that need another one have their own fixture."""
    from recross_hf import ReCrossPipeline

    return ReCrossPipeline.build(answering_bart, tokenizer, examples, tmp_path_factory.mktemp("built") / "pipeline")


def _delete(name):
    from huggingface_hub import HfApi

    for kind in ("model", "dataset", "space"):
        HfApi().delete_repo(name, repo_type=kind, missing_ok=True)


# What clients of a Hub import: first what reads no setting of the libraries.
_WITHOUT_SETTINGS = (
    "torch._dynamo",
    "pandas",
    "pyarrow.dataset",
    "faiss",
    "scipy.stats",
    "sklearn.metrics",
    "aiohttp",
)
_WITH_SETTINGS = ("hub_steps", "evaluate", "peft", "sentence_transformers")


@pytest.fixture(scope="session")
def clients(tmp_path_factory):
    """Starts clients of a Hub that have imported everything."""
    with Clients(tmp_path_factory.mktemp("clients"), _WITHOUT_SETTINGS, _WITH_SETTINGS) as clients:
        yield clients


@pytest.fixture(scope="session")
def loopback_hub():
    """A Hub on the loopback interface."""
    with LoopbackHub() as hub:
        yield hub


@pytest.fixture(scope="session")
def hub(request, tmp_path_factory):
    """A Hub on the loopback interface, or that at RECROSS_TEST_ENDPOINT, where RECROSS_TEST_TOKEN may write."""
    endpoint = os.environ.get("RECROSS_TEST_ENDPOINT")
    if endpoint is None:
        yield request.getfixturevalue("loopback_hub")
        return
    folder, token = tmp_path_factory.mktemp("remote"), os.environ["RECROSS_TEST_TOKEN"]
    with Client(client_environment(endpoint, folder, token), folder) as client:
        hub = Hub(endpoint, token, client("huggingface_hub:whoami")["name"])
        yield hub
        for name in hub.named:
            client(_delete, name=name)


@pytest.fixture
def loopback(hub):
    """The Hub of tests that look at its requests, make it fail or need other users; no fault or repository outlives a test."""
    if not isinstance(hub, LoopbackHub):
        pytest.skip(
            "RECROSS_TEST_ENDPOINT names another Hub: it has no faults on demand, log of requests or other users"
        )
    hub.requests.clear()
    before = dict(hub.store.repositories)
    yield hub
    hub.mend()
    hub.store.repositories = before


@pytest.fixture
def run_client(hub, clients, tmp_path):
    """Starts clients of the Hub: `run_client(token=hub.token)`. Those of a test have one `HF_HOME` unless told otherwise."""
    started = []

    def run(token=None, *, home=None, offline=False, **environment):
        settings = client_environment(hub.endpoint, home or tmp_path / "home", token, offline=offline)
        started.append(clients.start(settings | environment, tmp_path))
        return started[-1]

    yield run
    for client in started:
        client.close()
