"""Our errors in the page: the sentence as a toast, and the mark on the node that it is about."""

import pytest
from page.driver import PATIENCE, TOAST, Driver

pytestmark = pytest.mark.page
SENTENCE = "the connected image prompts are for 2 images, and 3 pictures are sampled. Set batch_size to 2."
# As the host sends it of a sampler, of a run that the page has queued.
FAIL = """async ([number, kind, message]) => {
    const { api } = await import("/scripts/api.js");
    const { queuePrompt } = api;
    api.queuePrompt = async () => ({ prompt_id: "1", number: 1, node_errors: {} });
    await app.queuePrompt(0);
    api.queuePrompt = queuePrompt;
    api.dispatchCustomEvent("execution_error", {
        prompt_id: "1", node_id: String(number), node_type: "KSampler", executed: [], exception_type: kind,
        exception_message: message, traceback: [], current_inputs: {}, current_outputs: {}, timestamp: 1,
    });
}"""
MARKED = """() => graphNodes().filter((node) =>
    node.strokeStyles?.executionError?.call(node) || String(app.lastExecutionError?.node_id) === String(node.id))
    .map((node) => node.type)"""


def fails(driver: Driver, kind: str, message: str) -> list[str]:
    """The toasts, once an Apply (the first node) and a sampler are there and the sampler has failed."""
    driver.add("ImagePromptApply", 500)
    driver.add("KSampler", 900)
    first, sampler = driver.page.evaluate("() => graphNodes().map((node) => node.id)")
    driver.page.evaluate(FAIL, [sampler, kind, message.format(first)])
    driver.settle()
    return driver.toasts()


def test_the_node_that_is_at_fault_is_marked_and_not_the_sampler(driver):
    (toast,) = fails(driver, "MismatchError", "Image Prompt: Apply #{}: " + SENTENCE)
    title, *words = toast.split("\n")
    assert title == "Image Prompt: Apply"
    assert SENTENCE in words
    assert driver.page.evaluate(MARKED) == ["ImagePromptApply"]


@pytest.mark.parametrize("message", [SENTENCE, "Image Prompt: Apply #99{}: " + SENTENCE])
def test_where_no_node_of_ours_is_known_the_sampler_is_marked(driver, message):
    (toast,) = fails(driver, "MismatchError", message)
    assert SENTENCE in toast
    assert driver.page.evaluate(MARKED) == ["KSampler"]


def test_errors_of_others_are_the_pages_own(driver):
    assert fails(driver, "RuntimeError", "Image Prompt: Apply #{}: not ours") == []
    assert driver.page.evaluate(MARKED) == ["KSampler"]


def test_an_error_of_a_real_run_is_seen(driver):
    """The adapter's file is empty."""
    driver.add("ImagePromptLoader", 400)
    driver.add("PreviewAny", 800)
    driver.page.evaluate("() => { const [loader, preview] = graphNodes(); loader.connect(0, preview, 0); }")
    driver.queue()
    toast = driver.page.locator(TOAST, has_text="Image Prompt: Load Adapter").first
    toast.wait_for(timeout=PATIENCE)
    assert "ip-adapter-plus_sd15.safetensors" in toast.inner_text()
    assert driver.page.evaluate(MARKED) == ["ImagePromptLoader"]
