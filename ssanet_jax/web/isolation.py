"""The HTTP headers with which browsers let a page use several threads.

https://developer.mozilla.org/docs/Web/API/Window/crossOriginIsolated
"""

HEADERS = {'Cross-Origin-Opener-Policy': 'same-origin', 'Cross-Origin-Embedder-Policy': 'require-corp'}
