"""Hand-written programs in the format of XLA's compiled HLO."""

PROGRAM = """HloModule jit_step, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%a, %b)
}

%all-reduce-scatter (input: f32[64]) -> f32[16] {
  %whole = f32[64]{0} all-reduce(%input), channel_id=5, replica_groups={{0,1,2,3}}, to_apply=%add
  ROOT %piece = f32[16]{0} dynamic-slice(%whole, %at), dynamic_slice_sizes={16}
}

%first_piece (p: bf16[8]) -> bf16[32] {
  %gather.1 = bf16[32]{0} all-gather(%p), channel_id=7, replica_groups={{0,1,2,3}}, dimensions={0}
}

%second_piece (p: bf16[8]) -> bf16[32] {
  %gather.2 = bf16[32]{0} all-gather(%p), channel_id=7, replica_groups={{0,1,2,3}}, dimensions={0}
}

%body (p: f32[4]) -> f32[4] {
  %r = f32[4]{0} all-reduce(%p), channel_id=9, replica_groups={{0,1,2,3}}, to_apply=%add
  %x = f32[256]{0} copy(%y)
}

ENTRY %main (p: f32[64]) -> f32[64] {
  %p = f32[64]{0} parameter(0)
  %start = f32[64]{0} all-reduce-start(%p), channel_id=1, replica_groups={{0,1,2,3}}, to_apply=%add
  %done = f32[64]{0} all-reduce-done(%start)
  %scattered = f32[16]{0} fusion(%done), kind=kCustom, calls=%all-reduce-scatter
  %g1 = bf16[32]{0} fusion(%done), kind=kCustom, calls=%first_piece
  %g2 = bf16[32]{0} fusion(%g1), kind=kCustom, calls=%second_piece
  %loop = f32[4]{0} while(%q), condition=%c, body=%body, backend_config={"known_trip_count":{"n":"3"}}
  %single = f32[2]{0} all-reduce(%p), channel_id=11, replica_groups={{0},{1},{2},{3}}, to_apply=%add
  ROOT %use = f32[64]{0} add(%done, %done), metadata={op_name="all-reduce-done(x)"}
}
"""
