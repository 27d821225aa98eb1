"""The text format of Prometheus, read back."""

import pytest

from ssanet_jax.serving.metrics import Counter, Gauge, Histogram, render


def test_the_page_has_the_values():
    counter, histogram = Counter('answers_total', 'Answers.', ['status']), Histogram('seconds', 'Time.', [0.1, 1])
    counter.add('200')
    counter.add('503', count=2)
    counter.add('200')
    for value in (0.05, 0.1, 0.5, 7):
        histogram.observe(value)
    assert render([counter, histogram, Gauge('waiting', 'Photos.', lambda: 3)]) == (
        '# HELP answers_total Answers.\n'
        '# TYPE answers_total counter\n'
        'answers_total{status="200"} 2\n'
        'answers_total{status="503"} 2\n'
        '# HELP seconds Time.\n'
        '# TYPE seconds histogram\n'
        'seconds_bucket{le="0.1"} 2\n'  # a bound belongs to its bucket
        'seconds_bucket{le="1"} 3\n'
        'seconds_bucket{le="+Inf"} 4\n'
        'seconds_sum 7.65\n'
        'seconds_count 4\n'
        '# HELP waiting Photos.\n'
        '# TYPE waiting gauge\n'
        'waiting 3\n'
    )


def test_the_client_of_prometheus_reads_the_page():
    parser = pytest.importorskip('prometheus_client.parser', reason='prometheus_client is not installed')
    counter, histogram = Counter('photos_total', 'Photos.'), Histogram('batch_photos', 'Photos in a batch.', [1, 2])
    counter.add(count=5)
    histogram.observe(2)
    families = {family.name: family for family in parser.text_string_to_metric_families(render([counter, histogram]))}
    assert families['photos'].type == 'counter' and families['photos'].samples[0].value == 5
    buckets = {sample.labels.get('le'): sample.value for sample in families['batch_photos'].samples}
    assert (buckets['1'], buckets['2'], buckets['+Inf']) == (0, 1, 1)
