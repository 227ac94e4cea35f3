import ExoRelay from './index.js';

export default ExoRelay;
export { ExoRelay };
export const { ExoError } = ExoRelay;
