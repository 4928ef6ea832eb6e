"""A chain of 30 Alembic revisions with data changes, as an application collects them over the years.

    chain.py DIRECTORY upgrade head | downgrade base | upgrade 7 ...

The scripts are written into DIRECTORY, where Alembic finds them. The database comes from libpq's environment variables.
"""

import pathlib
import sys

import alembic.command
import alembic.config

ENV = """
from alembic import context
from sqlalchemy import create_engine, pool

engine = create_engine("postgresql+psycopg://", poolclass=pool.NullPool)
with engine.connect() as connection:
    context.configure(connection=connection, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()
"""

# What each revision does, and how it is undone.
REVISIONS = [
    ("op.create_table('customer', sa.Column('id', sa.Integer, sa.Identity(), primary_key=True), sa.Column('name', sa.Text, nullable=False))",
     "op.drop_table('customer')"),
    ("customer = sa.table('customer', sa.column('name', sa.Text))\nop.bulk_insert(customer, [{'name': f'customer {n}'} for n in range(500)])",
     "op.execute('DELETE FROM customer')"),
    ("op.add_column('customer', sa.Column('email', sa.Text))\nop.execute(\"UPDATE customer SET email = 'c' || id || '@example.com'\")\nop.alter_column('customer', 'email', nullable=False)",
     "op.drop_column('customer', 'email')"),
    ("op.create_index('customer_email', 'customer', [sa.text('lower(email)')], unique=True)",
     "op.drop_index('customer_email')"),
    ("op.create_table('purchase', sa.Column('id', sa.BigInteger, primary_key=True), sa.Column('customer_id', sa.Integer, sa.ForeignKey('customer.id', ondelete='CASCADE'), nullable=False), sa.Column('total', sa.Numeric(10, 2), server_default='0'))\nop.execute('INSERT INTO purchase (customer_id, total) SELECT id, id * 1.5 FROM customer')",
     "op.drop_table('purchase')"),
    ("op.create_index('purchase_customer', 'purchase', ['customer_id'])",
     "op.drop_index('purchase_customer')"),
    ("sa.Enum('new', 'paid', 'sent', name='purchase_state').create(op.get_bind())\nop.add_column('purchase', sa.Column('state', sa.Enum(name='purchase_state', create_type=False), server_default='new', nullable=False))",
     "op.drop_column('purchase', 'state')\nop.execute('DROP TYPE purchase_state')"),
    ("op.execute(\"UPDATE purchase SET state = 'paid' WHERE id % 2 = 0\")",
     "op.execute(\"UPDATE purchase SET state = 'new'\")"),
    ("with op.get_context().autocommit_block():\n    op.execute(\"ALTER TYPE purchase_state ADD VALUE IF NOT EXISTS 'lost'\")",
     "op.execute(\"UPDATE purchase SET state = 'new' WHERE state = 'lost'\")"),
    ("op.execute(\"UPDATE purchase SET state = 'lost' WHERE id % 7 = 0\")",
     "op.execute(\"UPDATE purchase SET state = 'new' WHERE state = 'lost'\")"),
    ("op.add_column('purchase', sa.Column('at', sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False))",
     "op.drop_column('purchase', 'at')"),
    ("op.create_check_constraint('total_is_positive', 'purchase', 'total >= 0')",
     "op.drop_constraint('total_is_positive', 'purchase')"),
    ("op.alter_column('purchase', 'total', type_=sa.Numeric(14, 4))",
     "op.alter_column('purchase', 'total', type_=sa.Numeric(10, 2))"),
    ("op.add_column('customer', sa.Column('token', sa.Uuid, server_default=sa.text('gen_random_uuid()'), nullable=False))\nop.create_unique_constraint('customer_token', 'customer', ['token'])",
     "op.drop_column('customer', 'token')"),
    ("op.execute('CREATE VIEW paid AS SELECT p.id, c.name, p.total FROM purchase p JOIN customer c ON c.id = p.customer_id')",
     "op.execute('DROP VIEW paid')"),
    ("op.rename_table('purchase', 'orders')\nop.execute('ALTER SEQUENCE purchase_id_seq RENAME TO orders_id_seq')",
     "op.rename_table('orders', 'purchase')\nop.execute('ALTER SEQUENCE orders_id_seq RENAME TO purchase_id_seq')"),
    ("op.alter_column('customer', 'name', new_column_name='full_name')",
     "op.alter_column('customer', 'full_name', new_column_name='name')"),
    ("op.create_table('address', sa.Column('id', sa.Integer, primary_key=True), sa.Column('customer_id', sa.Integer, sa.ForeignKey('customer.id')), sa.Column('line', sa.Text))\nconnection = op.get_bind()\nfor row in connection.execute(sa.text('SELECT id FROM customer WHERE id <= 50')).all():\n    connection.execute(sa.text('INSERT INTO address (customer_id, line) VALUES (:id, :line)'), {'id': row.id, 'line': f'{row.id} Street'})",
     "op.drop_table('address')"),
    ("op.execute(\"CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN new.line := trim(new.line); RETURN new; END $$\")\nop.execute('CREATE TRIGGER stamp BEFORE INSERT OR UPDATE ON address FOR EACH ROW EXECUTE FUNCTION stamp()')",
     "op.execute('DROP TRIGGER stamp ON address')\nop.execute('DROP FUNCTION stamp()')"),
    ("op.execute(\"UPDATE address SET line = '  ' || line || '  '\")",
     "op.execute('UPDATE address SET line = line')"),
    ("op.create_table('event', sa.Column('id', sa.BigInteger, sa.Identity()), sa.Column('day', sa.Date, nullable=False), sa.Column('what', sa.JSON), postgresql_partition_by='RANGE (day)')\nop.execute(\"CREATE TABLE event_2026 PARTITION OF event FOR VALUES FROM ('2026-01-01') TO ('2027-01-01')\")",
     "op.drop_table('event')"),
    ("op.execute(\"INSERT INTO event (day, what) SELECT date '2026-01-01' + n, json_build_object('n', n, 'r', random()) FROM generate_series(0, 300) n\")",
     "op.execute('TRUNCATE event')"),
    ("op.execute(\"CREATE TABLE event_rest PARTITION OF event DEFAULT\")\nop.execute(\"INSERT INTO event (day) VALUES ('2030-01-01')\")",
     "op.execute('DROP TABLE event_rest')"),
    ("op.add_column('customer', sa.Column('search', sa.Text, sa.Computed(\"full_name || ' ' || email\", persisted=True)))\nop.create_index('customer_search', 'customer', [sa.text(\"to_tsvector('simple', search)\")], postgresql_using='gin')",
     "op.drop_column('customer', 'search')"),
    ("op.execute('CREATE MATERIALIZED VIEW totals AS SELECT customer_id, sum(total) AS total FROM orders GROUP BY customer_id')\nop.create_index('totals_customer', 'totals', ['customer_id'], unique=True)",
     "op.execute('DROP MATERIALIZED VIEW totals')"),
    ("op.execute(\"UPDATE orders SET total = total + 1\")\nop.execute('REFRESH MATERIALIZED VIEW totals')",
     "op.execute('UPDATE orders SET total = total - 1')"),
    ("op.create_table('item', sa.Column('order_id', sa.BigInteger, sa.ForeignKey('orders.id', deferrable=True, initially='DEFERRED'), primary_key=True), sa.Column('line', sa.Integer, primary_key=True), sa.Column('tags', sa.ARRAY(sa.Text)))\nop.execute(\"INSERT INTO item SELECT id, n, ARRAY['a', 'b'] FROM orders, generate_series(1, 2) n\")",
     "op.drop_table('item')"),
    ("op.execute(\"DELETE FROM item WHERE line = 2 AND order_id % 3 = 0\")\nop.alter_column('item', 'line', server_default='1')",
     "op.alter_column('item', 'line', server_default=None)"),
    ("op.execute('CREATE SCHEMA archive')\nop.execute(\"CREATE TABLE archive.orders AS SELECT * FROM orders WHERE state = 'lost'\")\nop.execute(\"DELETE FROM item USING archive.orders o WHERE o.id = order_id\")\nop.execute(\"DELETE FROM orders WHERE state = 'lost'\")",
     "op.execute('DROP SCHEMA archive CASCADE')"),
    ("op.execute(\"COMMENT ON TABLE customer IS 'who buys'\")\nop.execute('ALTER TABLE customer ALTER COLUMN id RESTART WITH 10000')\nop.execute(\"INSERT INTO customer (full_name, email) VALUES ('last', 'last@example.com')\")",
     "op.execute(\"DELETE FROM customer WHERE full_name = 'last'\")\nop.execute('COMMENT ON TABLE customer IS NULL')"),
]


def write(directory):
    versions = directory / "versions"
    versions.mkdir(parents=True, exist_ok=True)
    (directory / "env.py").write_text(ENV)
    (directory / "script.py.mako").write_text("")
    for number, bodies in enumerate(REVISIONS, 1):
        before = repr(str(number - 1)) if number > 1 else None
        lines = ["import sqlalchemy as sa", "from alembic import op", f"revision = '{number}'", f"down_revision = {before}"]
        for name, body in zip(("upgrade", "downgrade"), bodies):
            lines += [f"def {name}():"] + ["    " + line for line in body.splitlines()]
        (versions / f"{number:02}.py").write_text("\n".join(lines) + "\n")


def main(directory, command, revision):
    assert len(REVISIONS) == 30
    write(pathlib.Path(directory))
    config = alembic.config.Config()
    config.set_main_option("script_location", directory)
    {"upgrade": alembic.command.upgrade, "downgrade": alembic.command.downgrade}[command](config, revision)


main(*sys.argv[1:])
