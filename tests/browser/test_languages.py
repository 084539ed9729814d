"""The page in another language: language and direction, no English of ours left, no sideways scrolling, the switch."""

import re

import pytest
from playwright.sync_api import Browser, Page, expect

from finetune.ui import languages
from finetune.ui.languages import catalogue, spoken
from tests.browser.test_accessible import DESK, PHONE, TABS, opened, select

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

VISIBLE = """() => {
  const theirs = '[dir=auto], bdi, code, pre, svg, textarea, script, style, option, footer, .cm-editor, .toast-wrap, '
    + ':is(b, th, h1, span:not([data-testid]))[dir]';
  const found = new Set(), page = document.querySelector('gradio-app');
  const walker = document.createTreeWalker(page, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const within = walker.currentNode.parentElement;
    if (!within.closest(theirs) && within.checkVisibility({visibilityProperty: true}))
      found.add(walker.currentNode.textContent.replace(/\\s+/g, ' ').trim());
  }
  for (const one of page.querySelectorAll('input[placeholder], textarea[placeholder]')) found.add(one.placeholder);
  return [...found].filter(text => text);
}"""
"""Every text that shows, but what people and models wrote, code, and Gradio's footer."""

NAMES = re.compile(
    r"SmolLM2\S*|Hugging Face|Jobs|Hub|Gradio|JSON\w*|CSV|TSV|Parquet|Excel|GGUF|Q?LoRA|rsLoRA|PEFT|TRL|NEFTune|alpha"
    r"|min|dropout|YAML|Markdown|Modelfile|Ollama|LM Studio|llama\.cpp|vLLM|transformers|safetensors|SQL|Few-shot"
    r"|Retrieval|retrieval|few-shot|zero-shot|trackio|NVIDIA GPU|GPU|tickets|recipes|voice|processing|Enter|Shift|Intel"
    r"|AMD|EPYC|Processor|Core|Python|OpenAI|Top-p|DPO|macro|nats|line|sha256|owner|name|zip|all-linear|q_proj|v_proj"
    r"|none|linear|cosine|constant|lora|owner/name|CPU|Xeon|billing|cancellation|login|shipping|refund|bug"
    r"|feature_request|praise|chat jsonl"
    r"|[a-z]+\.[a-z]+|\.[a-z]+|id|key|value|GHz|@|\(R\)|\(TM\)|November|Qwen\S*|Llama\S*|Gemma\S*|LFM\S*|Apache\S*|MIT"
)
"""Names of products and formats, loanwords, settings' values, and the sample's labels."""


def english(page: Page) -> list[str]:
    """What shows and is English: what the catalogue would translate, and words that are no names."""
    found = page.evaluate(VISIBLE)
    untranslated = [text for text in found if catalogue("ur").said(text) != text and not re.search("[؀-ۿ]", text)]
    foreign = [text for text in found if re.search("[A-Za-z]{3,}", NAMES.sub("", text))]
    return [*untranslated, *foreign]


def test_every_tab_is_in_urdu_from_right_to_left_and_fits_a_phone(chromium: Browser, address: str) -> None:
    page = opened(chromium, address, "light", locale="ur-PK")
    assert page.evaluate("[document.documentElement.lang, document.documentElement.dir]") == ["ur", "rtl"]
    names = page.locator(TABS).evaluate_all("tabs => tabs.map(tab => tab.dataset.tabId)")
    with spoken("ur"):
        wanted = [languages.said(name) for name in ("Start", "Data", "Train", "Runs", "Chat", "Results", "Export")]
    assert page.locator(TABS).all_inner_texts() == wanted
    select(page, "data")
    page.click("#sample-tickets")
    expect(page.locator("#data-facts")).to_contain_text("360")
    left, wide = {}, {}
    for name in names:
        select(page, name)
        left[name] = english(page)
        page.set_viewport_size(PHONE)  # type: ignore[arg-type]
        page.wait_for_timeout(300)
        wide[name] = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        page.set_viewport_size(DESK)  # type: ignore[arg-type]
    assert {name: texts for name, texts in left.items() if texts} == {}
    assert {name: by for name, by in wide.items() if by > 0} == {}
    boxes = [page.locator(TABS).nth(place).bounding_box() for place in (0, 1)]
    assert boxes[0]
    assert boxes[1]
    assert boxes[0]["x"] > boxes[1]["x"], "the first tab is on the right"


def test_the_switch_is_labelled_works_and_is_remembered(chromium: Browser, address: str) -> None:
    page = opened(chromium, address, "light", locale="fr-FR")
    pick = page.get_by_label("Language")
    expect(pick).to_have_value("en")
    assert pick.locator("option").all_inner_texts() == list(languages.LANGUAGES.values())
    for code, direction in (("te", "ltr"), ("ur", "rtl"), ("es", "ltr")):
        with spoken(code):
            start = languages.said("Start")
        page.locator("#language").select_option(code)
        expect(page.locator(TABS).first).to_have_text(start)
        page.reload()
        expect(page.locator(TABS).first).to_have_text(start)
        expect(page.locator("#language")).to_have_value(code)
        assert page.evaluate("[document.documentElement.lang, document.documentElement.dir]") == [code, direction]
    page.locator("#language").focus()
    page.keyboard.press("Home")
    expect(page.locator(TABS).first).to_have_text("Start")
