import { BerthError, kindOf } from '../errors.ts';
import type { Client } from './client.ts';
import type { Context } from './context.ts';
import { type Credentials, dockerCredentials } from './docker-config.ts';
import { isTerminal } from './output.ts';
import { LayerBars } from './progress/bars.ts';
import { LayerLines } from './progress/lines.ts';
import type { LayerView } from './progress/view.ts';

/**
 * Pulls an image and shows how far each layer is: bars on a terminal, lines elsewhere, on stderr. Daemons
 * other than berthd pull without telling. Without credentials, docker's config.json is asked for some.
 *
 * @returns the image's id
 */
export async function pullImage(
  context: Context,
  client: Client,
  image: string,
  given?: Credentials,
): Promise<string> {
  const credentials = given ??
    (await dockerCredentials(image, context.env)) ?? { username: '', password: '' };
  const view: LayerView = isTerminal(context.stderr)
    ? new LayerBars(context.stderr)
    : new LayerLines(context.stderr);
  try {
    for await (const { layer, result } of client.pullImage({ image, ...credentials })) {
      if (layer) {
        view.update({
          digest: layer.digest,
          total: Number(layer.total_bytes),
          done: Number(layer.done_bytes),
          phase: layer.phase,
        });
      }
      if (result) return result.image_ref;
    }
    throw new BerthError('internal', `pull of ${image} ended without a result`);
  } catch (e: unknown) {
    if (kindOf(e) !== 'unimplemented') throw e;
  } finally {
    view.close();
  }
  const auth = Object.values(credentials).some(Boolean) ? { auth: credentials } : {};
  const { image_ref } = await client.image('PullImage', { image: { image }, ...auth }, { timeoutMs: 0 });
  return image_ref;
}
