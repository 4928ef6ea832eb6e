//! The SQL side of subscriptions.

use pgrx::prelude::*;

extension_sql!(
    r#"
CREATE TABLE subscriptions (
    name text COLLATE "C" PRIMARY KEY,
    carrier bigint NOT NULL,
    node text NOT NULL,
    term bigint NOT NULL,
    enabled boolean NOT NULL
);
COMMENT ON TABLE subscriptions IS 'subscriptions of the group: which node carries each of them, the how manieth carrier that is, and whether it is to subscribe';
REVOKE ALL ON subscriptions FROM PUBLIC;
GRANT SELECT ON subscriptions TO PUBLIC;

-- In tables of their own: the carrier's workers change these with every transaction of the publisher, whoever gives orders changes the one above.
CREATE TABLE subscription_positions (
    subscription text COLLATE "C" PRIMARY KEY,
    term bigint NOT NULL,
    position pg_lsn
);
COMMENT ON TABLE subscription_positions IS 'up to where, by the publisher''s count, the group has what a subscription brings; null before the first transaction';
REVOKE ALL ON subscription_positions FROM PUBLIC;
GRANT SELECT ON subscription_positions TO PUBLIC;

CREATE TABLE subscription_tables (
    subscription text COLLATE "C",
    relation regclass,
    term bigint NOT NULL,
    state text COLLATE "C" NOT NULL,
    position pg_lsn,
    slot text,
    PRIMARY KEY (subscription, relation)
);
COMMENT ON TABLE subscription_tables IS 'tables of subscriptions: i to be copied, f copied, and the position says up to where, s from that position on as the subscription, r as the subscription';
REVOKE ALL ON subscription_tables FROM PUBLIC;
GRANT SELECT ON subscription_tables TO PUBLIC;
"#,
    name = "subscriptions"
);
