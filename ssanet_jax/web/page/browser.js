/** What the page needs of a browser. */

// A module whose only function returns a vector of 128 bits: () -> v128, `i32.const 0, i8x16.splat, i8x16.popcnt`.
const SIMD_MODULE = new Uint8Array([
  0, 97, 115, 109, 1, 0, 0, 0, // magic number, version
  1, 5, 1, 96, 0, 1, 123, // types
  3, 2, 1, 0, // functions
  10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11, // code
]);

/** The sentence that explains why the page cannot work here; empty if it can. */
export function whatIsMissing() {
  const hasSimd = typeof WebAssembly === 'object' && WebAssembly.validate(SIMD_MODULE);
  if (hasSimd && typeof OffscreenCanvas === 'function' && typeof Worker === 'function') return '';
  return 'This browser is too old for this page: it lacks WebAssembly SIMD. '
    + 'Use Chrome or Edge 91, Firefox 114, Safari 16.4, or a later version.';
}
