/** What of an OCI image config berth uses (image-spec, config.md); absent members are empty. */
export interface ImageConfig {
  os: string;
  architecture: string;
  /** `user`, `uid`, `user:group`, `uid:gid`, … or empty. */
  user: string;
  /** `NAME=value` entries. */
  env: string[];
  entrypoint: string[];
  cmd: string[];
  workingDir: string;
  /** Paths that the image declares as volumes. */
  volumes: string[];
  labels: Record<string, string>;
  /** Signal name or number that stops it, or empty. */
  stopSignal: string;
}

/** An image that is unpacked and ready to run. */
export interface Image {
  /** Digest of the config blob, `sha256:<64 hex>`: the one id in image_ref, image_id and ImageStatus. */
  id: string;
  /** `registry/repository:tag` names, sorted. */
  repoTags: string[];
  /** `registry/repository@digest` names, sorted. */
  repoDigests: string[];
  /** Bytes of the blobs as stored (compressed layers, config, manifest). */
  size: bigint;
  config: ImageConfig;
  /** Of the layers, base first. */
  chainIds: string[];
  /** Never removed by garbage collection of the kubelet's or berth's. */
  pinned: boolean;
}
