"""Lines of a trace store's guide, as they are printed there."""

FIRST_BUILD = """curl -X POST http://localhost:8000/api/datasets/build \\
  -H "Content-Type: application/json" \\
  -d '{"dataset_name": "test", "dataset_version": "v1", "limit": 10}'"""
BUILD = """curl -X POST http://localhost:8000/api/datasets/build \\
  -H "Content-Type: application/json" \\
  -d '{
    "dataset_name": "high_card_duel_prod",
    "dataset_version": "v1",
    "filters": {"source": "ungar"},
    "limit": 1000,
    "selection_strategy": "latest"
  }'"""
EXPORT = """mkdir -p training/data
curl "http://localhost:8000/api/datasets/high_card_duel_prod-v1/export.jsonl?format=training_example" \\
  > training/data/high_card_duel_prod_v1.jsonl"""
