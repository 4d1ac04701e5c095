import type { PullImageRequest__Output } from '../../proto/gen/berth/v1/PullImageRequest.ts';
import type { PullProgress } from '../../proto/gen/berth/v1/PullProgress.ts';
import type { Services } from '../../src/services.ts';

const phases = {
  waiting: 'WAITING',
  download: 'DOWNLOADING',
  unpack: 'UNPACKING',
  done: 'DONE',
  exists: 'EXISTS',
} as const;

/** PullImage with progress per layer; cancelled when the client goes away. */
export async function pullWithProgress(
  s: Services,
  request: PullImageRequest__Output,
  send: (message: PullProgress) => Promise<void>,
  signal: AbortSignal,
): Promise<void> {
  const image = await s.images.pull(
    request.image,
    {
      username: request.username,
      password: request.password,
      identityToken: request.identity_token,
      registryToken: request.registry_token,
    },
    {
      signal,
      onProgress: ({ digest, totalBytes, doneBytes, phase }) => {
        // A client that does not keep up sees fewer steps; the pull does not wait for it.
        void send({
          layer: {
            digest,
            total_bytes: String(totalBytes),
            done_bytes: String(doneBytes),
            phase: phases[phase],
          },
        }).catch(() => {});
      },
    },
  );
  await send({ result: { image_ref: image.id } });
}
