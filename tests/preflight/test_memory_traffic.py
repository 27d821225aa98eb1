"""Memory traffic and cycles of programs small enough to add up by hand."""

from hlo_samples import PROGRAM

from ssanet_jax.preflight import memory_traffic


def test_vector_memory_is_not_counted():
    text = """HloModule m

ENTRY %main (p: f32[100]) -> f32[100] {
  %p = f32[100]{0} parameter(0)
  %start = (f32[100]{0:S(1)}, f32[100]{0}, u32[]{:S(2)}) copy-start(%p)
  %here = f32[100]{0:S(1)} copy-done(%start)
  %cut = ((f32[100]{0}), f32[25]{0:S(1)}, s32[]{:S(2)}) slice-start(%p), slice={[0:25]}
  %quarter = f32[25]{0:S(1)} slice-done(%cut)
  %inside = f32[100]{0:S(1)} fusion(%here, %quarter), kind=kLoop, calls=%f, backend_config={"estimated_cycles":"70"}
  ROOT %out = f32[100]{0} fusion(%inside, %p), kind=kLoop, calls=%f, backend_config={"estimated_cycles":"30"}
}
"""
    # Read whole (400), a quarter (100) and whole again (400), and written once (400).
    assert memory_traffic.hbm_bytes(text) == 1300
    assert memory_traffic.kernel_cycles(text) == 100
    # In PROGRAM the loop's copy writes 1024 bytes three times.
    assert (
        memory_traffic.hbm_bytes(PROGRAM)
        - memory_traffic.hbm_bytes(PROGRAM.replace('  %x = f32[256]{0} copy(%y)\n', ''))
        == 3072
    )
