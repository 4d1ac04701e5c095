/**
 * The database's schema, one entry per version: entry n takes a version-n file to n+1. Entries that
 * have shipped are never edited; a change is a new entry.
 *
 * `record` columns hold JSON (see json.ts): what is looked up or referenced has a column of its own,
 * the rest of an object is read and written whole.
 */
export const migrations: readonly string[] = [
  `
  CREATE TABLE sandboxes (id TEXT PRIMARY KEY, record TEXT NOT NULL) STRICT;

  CREATE TABLE containers (
    id TEXT PRIMARY KEY,
    sandbox_id TEXT NOT NULL REFERENCES sandboxes(id),
    record TEXT NOT NULL
  ) STRICT;
  CREATE INDEX containers_by_sandbox ON containers(sandbox_id);


  -- Blobs in the content store; digest is "sha256:<hex>" or "sha512:<hex>", size in bytes.
  CREATE TABLE blobs (digest TEXT PRIMARY KEY, size INTEGER NOT NULL) STRICT;

  -- Unpacked layers by chain ID (OCI image-spec, config.md, "Layer ChainID"); dir is the folder's short name, size allocated bytes.
  CREATE TABLE layers (
    chain_id TEXT PRIMARY KEY,
    dir TEXT NOT NULL UNIQUE,
    size INTEGER NOT NULL,
    inodes INTEGER NOT NULL,
    -- 1 when the layer's root hides all layers below.
    opaque INTEGER NOT NULL
  ) STRICT;

  -- Images by id, the digest of their config blob.
  CREATE TABLE images (id TEXT PRIMARY KEY, record TEXT NOT NULL) STRICT;

  -- Names: "registry/repository:tag" and "registry/repository@digest".
  CREATE TABLE image_names (name TEXT PRIMARY KEY, image_id TEXT NOT NULL REFERENCES images(id)) STRICT;
  CREATE INDEX image_names_by_image ON image_names(image_id);

  -- What keeps blobs and layers alive.
  CREATE TABLE image_blobs (
    image_id TEXT NOT NULL REFERENCES images(id),
    digest TEXT NOT NULL REFERENCES blobs(digest),
    PRIMARY KEY (image_id, digest)
  ) STRICT;
  CREATE INDEX image_blobs_by_digest ON image_blobs(digest);
  CREATE TABLE image_layers (
    image_id TEXT NOT NULL REFERENCES images(id),
    position INTEGER NOT NULL,
    chain_id TEXT NOT NULL REFERENCES layers(chain_id),
    PRIMARY KEY (image_id, position)
  ) STRICT;
  CREATE INDEX image_layers_by_chain_id ON image_layers(chain_id);
  `,
];
