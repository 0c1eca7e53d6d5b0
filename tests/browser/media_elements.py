"""What a media element of a page plays."""

from typing import Any

from playwright.async_api import JSHandle

_HEAR = """async (media, tone) => {
    // The analyser gets the element's sound instead of the speakers.
    const context = new AudioContext();
    const analyser = context.createAnalyser();
    context.createMediaElementSource(media).connect(analyser);
    analyser.fftSize = 8192;
    await context.resume();
    await media.play();
    const bins = new Float32Array(analyser.frequencyBinCount);
    const until = performance.now() + 20000;
    let hertz = 0;
    while (performance.now() < until && !(media.currentTime > 2 && Math.abs(hertz - tone) < 10)) {
        await new Promise((resolve) => setTimeout(resolve, 50));
        analyser.getFloatFrequencyData(bins);
        hertz = bins.indexOf(Math.max(...bins)) * context.sampleRate / analyser.fftSize;
    }
    return { hertz, seconds: media.currentTime, error: media.error?.message ?? "", paused: media.paused };
}"""


async def hear(media: JSHandle, tone: float) -> dict[str, Any]:
    """Play a media element until it has played 2 s and its loudest sound has this frequency, or for 20 s.

    Return the frequency of its loudest sound (`hertz`), its position (`seconds`), its `error`, and whether it is
    `paused`. From then on, the speakers no longer get its sound.
    """
    return dict(await media.evaluate(_HEAR, tone))
