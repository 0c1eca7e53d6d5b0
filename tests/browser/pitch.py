"""The pitch of what a listening page's player plays."""

PITCH = """() => {
    const { context, output } = relayPlayer;
    const analyser = new AnalyserNode(context, { fftSize: 8192 });
    output.connect(analyser);
    globalThis.pitch = () => {
      const bins = new Float32Array(analyser.frequencyBinCount);
      analyser.getFloatFrequencyData(bins);
      const loudest = Math.max(...bins);
      return loudest > -60 ? (bins.indexOf(loudest) * context.sampleRate) / analyser.fftSize : 0;
    };
}"""
"""A JavaScript function. After its call, `pitch()` returns the loudest frequency in Hz, or 0 in silence."""
